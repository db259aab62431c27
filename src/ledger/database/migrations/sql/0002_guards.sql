-- Refunds never exceed their payment, and what is settled stays as it is.

create function ledger_check_refund() returns trigger language plpgsql as $$
declare
    paid bigint;
    payment_currency text;
    refunded bigint;
begin
    -- Two refunds of one payment wait for each other here, so that each sees the other's amount.
    select amount_minor, currency into paid, payment_currency from payment where id = new.payment_id for update;
    select coalesce(sum(amount_minor), 0) into refunded from refund
    where payment_id = new.payment_id and status <> 'failed' and id <> new.id;
    if new.status <> 'failed' and refunded + new.amount_minor > paid then
        raise exception 'refunds of payment % would exceed it', new.payment_id
            using errcode = 'integrity_constraint_violation';
    end if;
    if new.currency <> payment_currency then
        raise exception 'refund % is in another currency than its payment', new.id
            using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end
$$;
create trigger refund_fits_payment before insert or update of status on refund
for each row execute function ledger_check_refund();

create trigger refund_is_final before update on refund for each row
when (
    (old.id, old.payment_id, old.amount_minor, old.currency, old.created_at)
    is distinct from
    (new.id, new.payment_id, new.amount_minor, new.currency, new.created_at)
    or (old.status <> 'requested' and new.status = 'requested')
    or (new.reason is distinct from old.reason and new.reason is not null)
)
execute function ledger_refuse_change();
create trigger refund_is_kept before delete on refund for each row execute function ledger_refuse_change();
create trigger refund_is_not_emptied before truncate on refund execute function ledger_refuse_change();

-- A price that was offered is a fact: a change of price is a new row.
create trigger product_price_is_final before update on product_price for each row
when (
    (old.id, old.product_id, old.amount_minor, old.currency, old.created_at)
    is distinct from
    (new.id, new.product_id, new.amount_minor, new.currency, new.created_at)
    or new.interval is distinct from old.interval
)
execute function ledger_refuse_change();
create trigger product_price_is_kept before delete on product_price
for each row execute function ledger_refuse_change();

-- The payment reference is printed on the invoice, so it belongs to what does not change.
create trigger invoice_reference_is_final before update of payment_reference on invoice for each row
when (new.payment_reference is distinct from old.payment_reference)
execute function ledger_refuse_change();

-- The connection that took a payment is part of the fact.
create trigger payment_connection_is_final before update of connection_id on payment for each row
when (new.connection_id is distinct from old.connection_id)
execute function ledger_refuse_change();

-- The checks of sums look up a few invoices by their ids. A plan made while the tables are small would read them whole,
-- and would keep doing so until the tables are analysed the next time.
alter function ledger_check_line_sums() set enable_seqscan = off;
alter function ledger_check_tax_sums() set enable_seqscan = off;
