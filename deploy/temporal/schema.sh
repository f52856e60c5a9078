#!/bin/sh
# Bring the schemas of Temporal's two databases up to date. Runs at every start; does nothing when they are.
set -eu

update() {
    # On a database that has its version tables already this says so and changes nothing.
    temporal-sql-tool --database "$1" setup-schema -v 0.0 || echo "version tables of $1: kept"
    temporal-sql-tool --database "$1" update-schema -d "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

update temporal temporal
update temporal_visibility visibility
