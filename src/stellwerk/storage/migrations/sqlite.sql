CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE storage_probe (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_storage_probe PRIMARY KEY (id)
);
CREATE TABLE users (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	revision BIGINT NOT NULL, 
	email VARCHAR(254) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	role VARCHAR(10) NOT NULL, 
	tier VARCHAR(10) NOT NULL, 
	active BOOLEAN NOT NULL, 
	password VARCHAR(200), 
	password_changed_at DOUBLE, 
	created_at DOUBLE NOT NULL, 
	models JSON, 
	requests_per_minute INTEGER, 
	burst INTEGER, 
	tokens_per_minute BIGINT, 
	concurrent_requests INTEGER, 
	budget BIGINT, 
	budget_window VARCHAR(5), 
	CONSTRAINT uq_users_email UNIQUE (email)
);
CREATE TABLE logins (
	id VARCHAR(16) NOT NULL, 
	revision BIGINT NOT NULL, 
	user_id INTEGER NOT NULL, 
	generation INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	refreshed_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	ended_at DOUBLE, 
	end_reason VARCHAR(20), 
	CONSTRAINT pk_logins PRIMARY KEY (id), 
	CONSTRAINT fk_logins_user_id_users FOREIGN KEY(user_id) REFERENCES users (id)
);
CREATE TABLE signup_requests (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	email VARCHAR(254) NOT NULL, 
	tier VARCHAR(10) NOT NULL, 
	message VARCHAR(2000), 
	status VARCHAR(10) NOT NULL, 
	created_at DOUBLE NOT NULL, 
	decided_at DOUBLE, 
	decided_by VARCHAR(254), 
	user_id INTEGER, 
	CONSTRAINT fk_signup_requests_user_id_users FOREIGN KEY(user_id) REFERENCES users (id)
);
CREATE TABLE attempts (
	number INTEGER NOT NULL, 
	subject VARCHAR(400) NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_attempts PRIMARY KEY (number)
);
CREATE TABLE ledger_accounts (
	id INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	user_id BIGINT NOT NULL, 
	currency VARCHAR(3) NOT NULL, 
	balance BIGINT NOT NULL, 
	CONSTRAINT pk_ledger_accounts PRIMARY KEY (id), 
	CONSTRAINT ck_ledger_accounts_never_below_zero CHECK (balance >= 0 OR kind NOT IN ('available', 'held')), 
	CONSTRAINT uq_ledger_accounts_kind_user_id UNIQUE (kind, user_id)
);
CREATE TABLE ledger_transactions (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	user_id BIGINT NOT NULL, 
	hold_id VARCHAR(32), 
	note VARCHAR(500) NOT NULL, 
	actor VARCHAR(254) NOT NULL, 
	CONSTRAINT pk_ledger_transactions PRIMARY KEY (id), 
	CONSTRAINT uq_ledger_transactions_hold_id_kind UNIQUE (hold_id, kind)
);
CREATE TABLE ledger_entries (
	id INTEGER NOT NULL, 
	transaction_id INTEGER NOT NULL, 
	account_id INTEGER NOT NULL, 
	amount BIGINT NOT NULL, 
	CONSTRAINT pk_ledger_entries PRIMARY KEY (id), 
	CONSTRAINT fk_ledger_entries_account_id_ledger_accounts FOREIGN KEY(account_id) REFERENCES ledger_accounts (id), 
	CONSTRAINT fk_ledger_entries_transaction_id_ledger_transactions FOREIGN KEY(transaction_id) REFERENCES ledger_transactions (id)
);
CREATE TABLE ledger_holds (
	id VARCHAR(32) NOT NULL, 
	owner VARCHAR(32) NOT NULL, 
	call_id VARCHAR(128) NOT NULL, 
	user_id BIGINT NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	at DOUBLE NOT NULL, 
	from_balance BOOLEAN NOT NULL, 
	amount BIGINT NOT NULL, 
	input_amount BIGINT NOT NULL, 
	budgets JSON NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	closed_at DOUBLE, 
	cost BIGINT, 
	estimated BOOLEAN, 
	CONSTRAINT pk_ledger_holds PRIMARY KEY (id)
);
CREATE TABLE budget_windows (
	subject VARCHAR(80) NOT NULL, 
	beginning DOUBLE NOT NULL, 
	spent BIGINT NOT NULL, 
	held BIGINT NOT NULL, 
	CONSTRAINT pk_budget_windows PRIMARY KEY (subject, beginning)
);
CREATE TABLE prices (
	id INTEGER NOT NULL, 
	model VARCHAR(256) NOT NULL, 
	valid_from DOUBLE NOT NULL, 
	withdrawn BOOLEAN NOT NULL, 
	currency VARCHAR(3) NOT NULL, 
	input BIGINT NOT NULL, 
	output BIGINT NOT NULL, 
	cache_read BIGINT, 
	cache_write BIGINT, 
	request BIGINT NOT NULL, 
	audio_second BIGINT NOT NULL, 
	character BIGINT NOT NULL, 
	page BIGINT NOT NULL, 
	note VARCHAR(500) NOT NULL, 
	created_at DOUBLE NOT NULL, 
	created_by VARCHAR(254) NOT NULL, 
	CONSTRAINT pk_prices PRIMARY KEY (id)
);
CREATE TABLE audit_log (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	actor VARCHAR(254) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	peer VARCHAR(64) NOT NULL, 
	action VARCHAR(60) NOT NULL, 
	subject VARCHAR(300) NOT NULL, 
	details JSON NOT NULL, 
	digest BLOB NOT NULL, 
	CONSTRAINT pk_audit_log PRIMARY KEY (id)
);
CREATE TABLE uptime_checks (
	id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	status VARCHAR(10) NOT NULL, 
	active_models INTEGER NOT NULL, 
	latency_ms DOUBLE NOT NULL, 
	CONSTRAINT pk_uptime_checks PRIMARY KEY (id)
);
CREATE TABLE changed_settings (
	name VARCHAR(60) NOT NULL, 
	value JSON, 
	changed_at DOUBLE NOT NULL, 
	changed_by VARCHAR(254) NOT NULL, 
	CONSTRAINT pk_changed_settings PRIMARY KEY (name)
);
CREATE TABLE "calls" (
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
	user_id BIGINT NOT NULL, 
	audio_milliseconds BIGINT, 
	characters BIGINT, 
	pages BIGINT, 
	estimated BOOLEAN NOT NULL, 
	CONSTRAINT pk_calls PRIMARY KEY (number)
);
CREATE TABLE "api_keys" (
	id VARCHAR(10) NOT NULL, 
	revision BIGINT NOT NULL, 
	user_id INTEGER NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	role VARCHAR(10) NOT NULL, 
	models JSON, 
	networks JSON, 
	priority VARCHAR(6) NOT NULL, 
	requests_per_minute INTEGER, 
	burst INTEGER, 
	tokens_per_minute BIGINT, 
	concurrent_requests INTEGER, 
	budget BIGINT, 
	budget_window VARCHAR(5), 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE, 
	revoked_at DOUBLE, 
	digest BLOB NOT NULL, 
	last_four VARCHAR(4) NOT NULL, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT fk_api_keys_user_id_users FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
CREATE TABLE session_exchanges (
	number INTEGER NOT NULL, 
	owner VARCHAR(20) NOT NULL, 
	model VARCHAR(256) NOT NULL, 
	session_id VARCHAR(64) NOT NULL, 
	question TEXT NOT NULL, 
	answer TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_session_exchanges PRIMARY KEY (number)
);
CREATE INDEX ix_api_keys_revision ON api_keys (revision);
CREATE INDEX ix_api_keys_user_id ON api_keys (user_id);
CREATE INDEX ix_attempts_at ON attempts (at);
CREATE INDEX ix_attempts_subject_at ON attempts (subject, at);
CREATE INDEX ix_audit_log_at ON audit_log (at);
CREATE INDEX ix_audit_log_subject ON audit_log (subject);
CREATE INDEX ix_calls_at ON calls (at);
CREATE INDEX ix_calls_key_id_at ON calls (key_id, at);
CREATE INDEX ix_calls_user_id_at ON calls (user_id, at);
CREATE INDEX ix_ledger_entries_account_id ON ledger_entries (account_id);
CREATE INDEX ix_ledger_entries_transaction_id ON ledger_entries (transaction_id);
CREATE INDEX ix_ledger_holds_state ON ledger_holds (state);
CREATE INDEX ix_ledger_transactions_user_id_id ON ledger_transactions (user_id, id);
CREATE INDEX ix_logins_revision ON logins (revision);
CREATE INDEX ix_logins_user_id ON logins (user_id);
CREATE INDEX ix_prices_model_valid_from ON prices (model, valid_from);
CREATE INDEX ix_session_exchanges_owner_model_session_id_number ON session_exchanges (owner, model, session_id, number);
CREATE INDEX ix_signup_requests_email ON signup_requests (email);
CREATE INDEX ix_signup_requests_status ON signup_requests (status);
CREATE INDEX ix_uptime_checks_at ON uptime_checks (at);
CREATE INDEX ix_users_revision ON users (revision);
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END;
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END;
CREATE TRIGGER ledger_transactions_no_delete BEFORE DELETE ON ledger_transactions BEGIN SELECT RAISE(ABORT, 'ledger_transactions is append-only'); END;
CREATE TRIGGER ledger_transactions_no_update BEFORE UPDATE ON ledger_transactions BEGIN SELECT RAISE(ABORT, 'ledger_transactions is append-only'); END;
INSERT INTO alembic_version (version_num) VALUES ('0003');
