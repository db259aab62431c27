-- A period that was booked stays booked: it is what keeps it from being booked twice.
create trigger subscription_period_is_final before update or delete on subscription_period
for each row execute function ledger_refuse_change();
create trigger subscription_period_is_not_emptied before truncate on subscription_period
execute function ledger_refuse_change();

-- What somebody wanted is a fact; how it ended is said once.
create trigger subscription_change_is_final before update on subscription_change for each row
when (
    (old.id, old.subscription_id, old.kind, old.price_id, old.prorates, old.prorate_at, old.tax_rate_bp,
     old.tax_label, old.created_at)
    is distinct from
    (new.id, new.subscription_id, new.kind, new.price_id, new.prorates, new.prorate_at, new.tax_rate_bp,
     new.tax_label, new.created_at)
    or (old.status <> 'requested' and new.status <> old.status)
)
execute function ledger_refuse_change();
create trigger subscription_change_is_kept before delete on subscription_change
for each row execute function ledger_refuse_change();

-- A subscription is kept with all that was paid for it; retention only frees its person.
create trigger subscription_is_kept before delete on subscription for each row execute function ledger_refuse_change();
create trigger subscription_is_not_emptied before truncate on subscription execute function ledger_refuse_change();
create trigger subscription_is_whose_it_is before update on subscription for each row
when (
    (old.id, old.connection_id, old.created_at) is distinct from (new.id, new.connection_id, new.created_at)
    or (new.person_id is distinct from old.person_id and new.person_id is not null)
    or (old.remote_id is not null and new.remote_id is distinct from old.remote_id)
    or (old.activated_at is not null and new.activated_at is distinct from old.activated_at)
)
execute function ledger_refuse_change();

create trigger dispute_is_kept before delete on dispute for each row execute function ledger_refuse_change();
