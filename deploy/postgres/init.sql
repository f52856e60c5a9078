-- Run once by psql as the superuser, on an empty server: a login per process, each with just the roles it takes.
\set ON_ERROR_STOP on
\getenv migrator_password HOLDFAST_MIGRATOR_PASSWORD
\getenv worker_password HOLDFAST_WORKER_PASSWORD
\getenv api_password HOLDFAST_API_PASSWORD
\getenv temporal_password TEMPORAL_PASSWORD

-- The roles of the schema. Migrations make them too where they are missing; making them here keeps CREATEROLE away
-- from every login.
CREATE ROLE holdfast_owner NOLOGIN BYPASSRLS;
CREATE ROLE holdfast_app NOLOGIN NOBYPASSRLS;
CREATE ROLE holdfast_engine NOLOGIN BYPASSRLS;

CREATE ROLE holdfast_migrator LOGIN PASSWORD :'migrator_password';
CREATE ROLE holdfast_worker LOGIN PASSWORD :'worker_password';
CREATE ROLE holdfast_api LOGIN PASSWORD :'api_password';
CREATE ROLE temporal LOGIN PASSWORD :'temporal_password';

-- A login has no rights of its own: each connection takes its role when it starts.
GRANT holdfast_owner TO holdfast_migrator WITH INHERIT FALSE, SET TRUE;
GRANT holdfast_app, holdfast_engine TO holdfast_worker WITH INHERIT FALSE, SET TRUE;
GRANT holdfast_app TO holdfast_api WITH INHERIT FALSE, SET TRUE;

CREATE DATABASE holdfast OWNER holdfast_migrator TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin LOCALE 'C.UTF-8';
REVOKE ALL ON DATABASE holdfast FROM PUBLIC;
GRANT CONNECT ON DATABASE holdfast TO holdfast_worker, holdfast_api;

CREATE DATABASE temporal OWNER temporal;
REVOKE ALL ON DATABASE temporal FROM PUBLIC;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE ALL ON DATABASE temporal_visibility FROM PUBLIC;

-- btree_gin is used by Temporal's visibility schema.
\connect temporal_visibility
CREATE EXTENSION IF NOT EXISTS btree_gin;
\connect holdfast
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
