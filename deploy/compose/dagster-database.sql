-- Dagster's own database: PostgreSQL's image runs this when its volume is new.
CREATE DATABASE fleetprompt_dagster;
REVOKE ALL ON DATABASE fleetprompt_dagster FROM PUBLIC;
