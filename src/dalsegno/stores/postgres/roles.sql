-- Two roles for the store in schema dalsegno: one that owns and migrates it, one that nodes and clients use.
-- Run it as the database's owner, as often as you like.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :migrator_text) THEN CREATE ROLE :migrator NOLOGIN; END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :app_text) THEN CREATE ROLE :app NOLOGIN; END IF;
END $$;

-- The migrator owns the schema and everything in it.
CREATE SCHEMA IF NOT EXISTS :schema AUTHORIZATION :migrator;
ALTER SCHEMA :schema OWNER TO :migrator;
DO $$ DECLARE one record; BEGIN
    FOR one IN SELECT c.oid::regclass AS name, c.relkind AS kind
                 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = :schema_text AND c.relkind IN ('r', 'v') LOOP
        EXECUTE format('ALTER %s %s OWNER TO ' || :migrator_quoted_text,
                       CASE one.kind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, one.name);
    END LOOP;
END $$;

-- The app reads and writes rows, and changes nothing else: no TRUNCATE, no REFERENCES, no TRIGGER, no CREATE.
REVOKE ALL ON SCHEMA :schema FROM PUBLIC;
GRANT USAGE ON SCHEMA :schema TO :app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA :schema TO :app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA :schema TO :app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA :schema TO :app;
ALTER DEFAULT PRIVILEGES FOR ROLE :migrator IN SCHEMA :schema GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :app;
ALTER DEFAULT PRIVILEGES FOR ROLE :migrator IN SCHEMA :schema GRANT USAGE, SELECT ON SEQUENCES TO :app;
ALTER DEFAULT PRIVILEGES FOR ROLE :migrator IN SCHEMA :schema GRANT EXECUTE ON FUNCTIONS TO :app;
