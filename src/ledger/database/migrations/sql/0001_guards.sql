-- What a table definition cannot say: issued documents do not change, and their sums agree.

create function ledger_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% of % is refused: issued documents and recorded facts do not change', tg_op, tg_table_name
        using errcode = 'integrity_constraint_violation';
end
$$;

-- An invoice's state may change, and what points at a person may be freed. Nothing else may.
create trigger invoice_is_final before update on invoice for each row
when (
    (old.id, old.number, old.series, old.series_number, old.currency, old.subtotal_minor, old.tax_minor,
     old.total_minor, old.tax_label, old.created_at)
    is distinct from
    (new.id, new.number, new.series, new.series_number, new.currency, new.subtotal_minor, new.tax_minor,
     new.total_minor, new.tax_label, new.created_at)
    or new.due_at is distinct from old.due_at
    or new.created_by_service is distinct from old.created_by_service
    or (new.person_id is distinct from old.person_id and new.person_id is not null)
)
execute function ledger_refuse_change();
create trigger invoice_is_kept before delete on invoice for each row execute function ledger_refuse_change();
create trigger invoice_is_not_emptied before truncate on invoice execute function ledger_refuse_change();

create trigger invoice_line_is_final before update or delete on invoice_line
for each row execute function ledger_refuse_change();
create trigger invoice_line_is_not_emptied before truncate on invoice_line execute function ledger_refuse_change();

create trigger invoice_tax_is_final before update or delete on invoice_tax
for each row execute function ledger_refuse_change();
create trigger invoice_tax_is_not_emptied before truncate on invoice_tax execute function ledger_refuse_change();

-- A payment is a fact; only the free text beside it may go, since it can hold personal data.
create trigger payment_is_final before update on payment for each row
when (
    (old.id, old.invoice_id, old.amount_minor, old.currency, old.provider, old.method, old.is_unexpected,
     old.received_at, old.created_at)
    is distinct from
    (new.id, new.invoice_id, new.amount_minor, new.currency, new.provider, new.method, new.is_unexpected,
     new.received_at, new.created_at)
    or new.provider_reference is distinct from old.provider_reference
    or (new.reference is distinct from old.reference and new.reference is not null)
)
execute function ledger_refuse_change();
create trigger payment_is_kept before delete on payment for each row execute function ledger_refuse_change();
create trigger payment_is_not_emptied before truncate on payment execute function ledger_refuse_change();

create trigger audit_entry_is_final before update on audit_entry for each row
when (
    (old.id, old.action, old.entity_type, old.entity_id, old.actor_kind, old.created_at)
    is distinct from
    (new.id, new.action, new.entity_type, new.entity_id, new.actor_kind, new.created_at)
    or new.actor_name is distinct from old.actor_name
    or new.details is distinct from old.details
    or (new.actor_person_id is distinct from old.actor_person_id and new.actor_person_id is not null)
)
execute function ledger_refuse_change();
create trigger audit_entry_is_kept before delete on audit_entry for each row execute function ledger_refuse_change();
create trigger audit_entry_is_not_emptied before truncate on audit_entry execute function ledger_refuse_change();
create trigger audit_seal_is_final before update or delete on audit_seal
for each row execute function ledger_refuse_change();
create trigger audit_seal_is_not_emptied before truncate on audit_seal execute function ledger_refuse_change();

-- Sum of lines = subtotal, checked once per statement over the invoices it touched.
create function ledger_check_line_sums() returns trigger language plpgsql as $$
declare
    wrong text;
begin
    select i.number into wrong
    from invoice i
    join (
        select l.invoice_id, sum(l.total_minor) as net_minor
        from invoice_line l
        where l.invoice_id in (select invoice_id from new_lines)
        group by l.invoice_id
    ) sums on sums.invoice_id = i.id
    where sums.net_minor <> i.subtotal_minor
    limit 1;
    if found then
        raise exception 'the lines of invoice % do not add up to its subtotal', wrong
            using errcode = 'integrity_constraint_violation';
    end if;
    return null;
end
$$;
create trigger invoice_line_sums after insert on invoice_line referencing new table as new_lines
for each statement execute function ledger_check_line_sums();

-- Sum of the shares = subtotal and tax of the invoice.
create function ledger_check_tax_sums() returns trigger language plpgsql as $$
declare
    wrong text;
begin
    select i.number into wrong
    from invoice i
    join (
        select t.invoice_id, sum(t.net_minor) as net_minor, sum(t.tax_minor) as tax_minor
        from invoice_tax t
        where t.invoice_id in (select invoice_id from new_shares)
        group by t.invoice_id
    ) sums on sums.invoice_id = i.id
    where sums.net_minor <> i.subtotal_minor or sums.tax_minor <> i.tax_minor
    limit 1;
    if found then
        raise exception 'the tax shares of invoice % do not add up to its tax', wrong
            using errcode = 'integrity_constraint_violation';
    end if;
    return null;
end
$$;
create trigger invoice_tax_sums after insert on invoice_tax referencing new table as new_shares
for each statement execute function ledger_check_tax_sums();

-- The rows that exist exactly once.
insert into billing_settings (
    id, default_currency, tax_rate_bp, tax_label, data_retention_days, allow_self_cancel, smtp_security, language,
    updated_at
) values (1, 'EUR', 0, 'Tax', 2922, true, 'starttls', 'en', now());
insert into lanyard_heartbeat (id, due_at, attempts) values (1, now(), 0);
