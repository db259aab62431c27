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
-- A bank has decided; what was disputed, and of which payment, stays as it was reported.
create trigger dispute_is_final before update on dispute for each row
when (
    (old.id, old.payment_id, old.remote_id, old.created_at)
    is distinct from
    (new.id, new.payment_id, new.remote_id, new.created_at)
    or (old.status in ('won', 'lost') and new.status <> old.status)
)
execute function ledger_refuse_change();

-- Refunds made elsewhere are booked as the provider reports them, in any order. What the provider named keeps its name;
-- once it failed there, it stays failed. One that failed before the provider named it can still turn out otherwise.
-- What succeeded can only fail, and when it was settled is said once for each outcome.
drop trigger refund_is_final on refund;
create trigger refund_is_final before update on refund for each row
when (
    (old.id, old.payment_id, old.amount_minor, old.currency, old.created_at)
    is distinct from
    (new.id, new.payment_id, new.amount_minor, new.currency, new.created_at)
    or (new.reason is distinct from old.reason and new.reason is not null)
    or (old.provider_reference is not null and new.provider_reference is distinct from old.provider_reference)
    or (old.status = 'succeeded' and new.status = 'requested')
    or (old.status = 'failed' and new.status <> 'failed' and old.provider_reference is not null)
    or (old.status = 'failed' and new.status = 'requested' and new.provider_reference is null)
    or (old.status = new.status and new.settled_at is distinct from old.settled_at)
)
execute function ledger_refuse_change();
