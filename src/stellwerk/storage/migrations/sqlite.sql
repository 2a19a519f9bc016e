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
CREATE TABLE webhook_subscriptions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	url VARCHAR(2048) NOT NULL, 
	events JSON NOT NULL, 
	description VARCHAR(200) NOT NULL, 
	active BOOLEAN NOT NULL, 
	disabled_reason VARCHAR(200), 
	with_images BOOLEAN NOT NULL, 
	with_key BOOLEAN NOT NULL, 
	secret BLOB NOT NULL, 
	previous_secret BLOB, 
	previous_until DOUBLE, 
	failing_since DOUBLE, 
	created_at DOUBLE NOT NULL
);
CREATE TABLE webhook_messages (
	number INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	subscription_id INTEGER NOT NULL, 
	event VARCHAR(40) NOT NULL, 
	state VARCHAR(9) NOT NULL, 
	body BLOB, 
	size INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	due_at DOUBLE NOT NULL, 
	lease VARCHAR(32), 
	attempts INTEGER NOT NULL, 
	settled_at DOUBLE, 
	CONSTRAINT pk_webhook_messages PRIMARY KEY (number), 
	CONSTRAINT uq_webhook_messages_id UNIQUE (id), 
	CONSTRAINT fk_webhook_messages_subscription_id_webhook_subscriptions FOREIGN KEY(subscription_id) REFERENCES webhook_subscriptions (id) ON DELETE CASCADE
);
CREATE TABLE webhook_attempts (
	number INTEGER NOT NULL, 
	message_number INTEGER NOT NULL, 
	subscription_id INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	status INTEGER, 
	milliseconds INTEGER NOT NULL, 
	error VARCHAR(200), 
	CONSTRAINT pk_webhook_attempts PRIMARY KEY (number), 
	CONSTRAINT fk_webhook_attempts_message_number_webhook_messages FOREIGN KEY(message_number) REFERENCES webhook_messages (number) ON DELETE CASCADE, 
	CONSTRAINT fk_webhook_attempts_subscription_id_webhook_subscriptions FOREIGN KEY(subscription_id) REFERENCES webhook_subscriptions (id) ON DELETE CASCADE
);
CREATE TABLE upstream_usage (
	hour BIGINT NOT NULL, 
	provider VARCHAR(64) NOT NULL, 
	key_index INTEGER NOT NULL, 
	model VARCHAR(256) NOT NULL, 
	requests BIGINT NOT NULL, 
	prompt_tokens BIGINT NOT NULL, 
	completion_tokens BIGINT NOT NULL, 
	CONSTRAINT pk_upstream_usage PRIMARY KEY (hour, provider, key_index, model)
);
CREATE TABLE engine_crashes (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at DOUBLE NOT NULL, 
	model TEXT NOT NULL, 
	engine VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	exit_code INTEGER, 
	signal VARCHAR(32), 
	memory_mib DOUBLE, 
	uptime DOUBLE NOT NULL, 
	had_served BOOLEAN NOT NULL, 
	last_lines JSON NOT NULL, 
	request_ids JSON NOT NULL
);
CREATE TABLE budget_notices (
	subject VARCHAR(80) NOT NULL, 
	beginning DOUBLE NOT NULL, 
	percent INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT pk_budget_notices PRIMARY KEY (subject, beginning, percent)
);
CREATE TABLE missing_models (
	name VARCHAR(128) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	user_id BIGINT NOT NULL, 
	client_id VARCHAR(128) NOT NULL, 
	count BIGINT NOT NULL, 
	first_at DOUBLE NOT NULL, 
	last_at DOUBLE NOT NULL, 
	nearest VARCHAR(256), 
	CONSTRAINT pk_missing_models PRIMARY KEY (name, key_id)
);
CREATE TABLE jobs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(36) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	queue VARCHAR(256) NOT NULL, 
	path VARCHAR(200) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	user_id BIGINT NOT NULL, 
	client_id VARCHAR(128) NOT NULL, 
	holder VARCHAR(128) NOT NULL, 
	rank INTEGER NOT NULL, 
	tag BIGINT NOT NULL, 
	labels JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	queued_at DOUBLE NOT NULL, 
	deadline_at DOUBLE NOT NULL, 
	state VARCHAR(9) NOT NULL, 
	attempts INTEGER NOT NULL, 
	owner VARCHAR(32), 
	lease_until DOUBLE, 
	fence INTEGER NOT NULL, 
	started_at DOUBLE, 
	finished_at DOUBLE, 
	status INTEGER, 
	error JSON, 
	progress JSON, 
	idempotency_key VARCHAR(200), 
	parent_number INTEGER, 
	parent_id VARCHAR(36), 
	batch_id VARCHAR(64), 
	result_type VARCHAR(100), 
	result_expires_at DOUBLE, 
	request_digest BLOB, 
	result BLOB, 
	body BLOB, 
	CONSTRAINT fk_jobs_parent_number_jobs FOREIGN KEY(parent_number) REFERENCES jobs (number) ON DELETE SET NULL, 
	CONSTRAINT uq_jobs_id UNIQUE (id)
);
CREATE TABLE job_attempts (
	job_number INTEGER NOT NULL, 
	fence INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	owner VARCHAR(32) NOT NULL, 
	started_at DOUBLE NOT NULL, 
	ended_at DOUBLE, 
	outcome VARCHAR(9), 
	status INTEGER, 
	error VARCHAR(200), 
	CONSTRAINT pk_job_attempts PRIMARY KEY (job_number, fence), 
	CONSTRAINT fk_job_attempts_job_number_jobs FOREIGN KEY(job_number) REFERENCES jobs (number) ON DELETE CASCADE
);
CREATE TABLE job_queues (
	queue VARCHAR(256) NOT NULL, 
	paused BOOLEAN NOT NULL, 
	turns BIGINT NOT NULL, 
	processed BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	timeouts BIGINT NOT NULL, 
	cancelled BIGINT NOT NULL, 
	CONSTRAINT pk_job_queues PRIMARY KEY (queue)
);
CREATE TABLE files (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(40) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	user_id BIGINT NOT NULL, 
	purpose VARCHAR(20) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	size BIGINT NOT NULL, 
	complete BOOLEAN NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE, 
	CONSTRAINT uq_files_id UNIQUE (id)
);
CREATE TABLE file_parts (
	file_number INTEGER NOT NULL, 
	part INTEGER NOT NULL, 
	content BLOB NOT NULL, 
	CONSTRAINT pk_file_parts PRIMARY KEY (file_number, part), 
	CONSTRAINT fk_file_parts_file_number_files FOREIGN KEY(file_number) REFERENCES files (number) ON DELETE CASCADE
);
CREATE TABLE batches (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(40) NOT NULL, 
	job_id VARCHAR(36) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	user_id BIGINT NOT NULL, 
	endpoint VARCHAR(40) NOT NULL, 
	input_file_id VARCHAR(40) NOT NULL, 
	labels JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	cancelling_at DOUBLE, 
	ended_at DOUBLE, 
	status VARCHAR(11), 
	total INTEGER NOT NULL, 
	completed INTEGER NOT NULL, 
	failed INTEGER NOT NULL, 
	errors JSON, 
	output_file_id VARCHAR(40), 
	error_file_id VARCHAR(40), 
	CONSTRAINT uq_batches_id UNIQUE (id)
);
CREATE INDEX ix_api_keys_revision ON api_keys (revision);
CREATE INDEX ix_api_keys_user_id ON api_keys (user_id);
CREATE INDEX ix_attempts_at ON attempts (at);
CREATE INDEX ix_attempts_subject_at ON attempts (subject, at);
CREATE INDEX ix_audit_log_at ON audit_log (at);
CREATE INDEX ix_audit_log_subject ON audit_log (subject);
CREATE INDEX ix_batches_ended_at ON batches (ended_at);
CREATE INDEX ix_batches_key_id_number ON batches (key_id, number);
CREATE INDEX ix_batches_user_id_number ON batches (user_id, number);
CREATE INDEX ix_calls_at ON calls (at);
CREATE INDEX ix_calls_key_id_at ON calls (key_id, at);
CREATE INDEX ix_calls_user_id_at ON calls (user_id, at);
CREATE INDEX ix_files_expires_at ON files (expires_at);
CREATE INDEX ix_files_key_id_number ON files (key_id, number);
CREATE INDEX ix_files_user_id_number ON files (user_id, number);
CREATE INDEX ix_jobs_batch_id_state ON jobs (batch_id, state);
CREATE INDEX ix_jobs_finished_at ON jobs (finished_at);
CREATE UNIQUE INDEX ix_jobs_key_id_idempotency_key ON jobs (key_id, idempotency_key);
CREATE INDEX ix_jobs_key_id_number ON jobs (key_id, number);
CREATE INDEX ix_jobs_parent_number_state ON jobs (parent_number, state);
CREATE INDEX ix_jobs_queue_alone ON jobs (queue, state, parent_id) WHERE state = 'queued' AND parent_id IS NULL;
CREATE INDEX ix_jobs_queue_finished_at ON jobs (queue, finished_at);
CREATE INDEX ix_jobs_result_expires_at ON jobs (result_expires_at);
CREATE INDEX ix_jobs_state_deadline_at ON jobs (state, deadline_at);
CREATE INDEX ix_jobs_state_holder_queue_rank_client_id_tag ON jobs (state, holder, queue, rank, client_id, tag);
CREATE INDEX ix_jobs_state_queue_rank_queued_at ON jobs (state, queue, rank, queued_at);
CREATE INDEX ix_jobs_state_queue_rank_tag ON jobs (state, queue, rank, tag);
CREATE INDEX ix_jobs_user_id_number ON jobs (user_id, number);
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
CREATE INDEX ix_webhook_attempts_message_number ON webhook_attempts (message_number);
CREATE INDEX ix_webhook_attempts_subscription_id_number ON webhook_attempts (subscription_id, number);
CREATE INDEX ix_webhook_messages_subscription_id_number ON webhook_messages (subscription_id, number);
CREATE INDEX ix_webhook_messages_subscription_id_state_due_at_number_size ON webhook_messages (subscription_id, state, due_at, number, size);
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END;
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END;
CREATE TRIGGER ledger_transactions_no_delete BEFORE DELETE ON ledger_transactions BEGIN SELECT RAISE(ABORT, 'ledger_transactions is append-only'); END;
CREATE TRIGGER ledger_transactions_no_update BEFORE UPDATE ON ledger_transactions BEGIN SELECT RAISE(ABORT, 'ledger_transactions is append-only'); END;
INSERT INTO alembic_version (version_num) VALUES ('0010');
