-- Run at the first use of the database, whole in one transaction. The lock lets services that start together wait for each other.
select pg_advisory_xact_lock(7305081463);
create table if not exists notes (
    id bigint generated always as identity primary key,
    title text not null,
    text text not null,
    changed_at timestamptz not null default now()
);
