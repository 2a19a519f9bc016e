CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE api_keys (
	id VARCHAR(10) NOT NULL, 
	revision BIGINT NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	role VARCHAR(10) NOT NULL, 
	models JSON, 
	requests_per_minute INTEGER, 
	concurrent_requests INTEGER, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE, 
	revoked_at DOUBLE, 
	digest BLOB NOT NULL, 
	last_four VARCHAR(4) NOT NULL, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
CREATE INDEX ix_api_keys_revision ON api_keys (revision);
CREATE TABLE calls (
	number INTEGER NOT NULL, 
	id VARCHAR(128) NOT NULL, 
	at DOUBLE NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	operation VARCHAR(32) NOT NULL, 
	model VARCHAR(256) NOT NULL, 
	provider VARCHAR(64), 
	target VARCHAR(256), 
	stream BOOLEAN NOT NULL, 
	status INTEGER NOT NULL, 
	error VARCHAR(64), 
	attempts INTEGER NOT NULL, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	cached_tokens BIGINT, 
	reasoning_tokens BIGINT, 
	cost BIGINT, 
	duration DOUBLE NOT NULL, 
	first_byte DOUBLE, 
	CONSTRAINT pk_calls PRIMARY KEY (number)
);
CREATE INDEX ix_calls_at ON calls (at);
CREATE INDEX ix_calls_key_id_at ON calls (key_id, at);
CREATE TABLE storage_probe (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_storage_probe PRIMARY KEY (id)
);
INSERT INTO alembic_version (version_num) VALUES ('0001');
