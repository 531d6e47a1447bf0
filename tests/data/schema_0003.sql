-- A database of schema 0003, as text: tests open it with every newer version.
BEGIN TRANSACTION;
CREATE TABLE alarm (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	rule TEXT NOT NULL, 
	severity TEXT NOT NULL, 
	message TEXT NOT NULL, 
	data TEXT NOT NULL, 
	state TEXT NOT NULL, 
	acknowledged BOOLEAN NOT NULL, 
	acknowledged_by TEXT NOT NULL, 
	occurrences BIGINT NOT NULL, 
	raised_at_ms BIGINT NOT NULL, 
	last_raised_at_ms BIGINT NOT NULL, 
	acknowledged_at_ms BIGINT, 
	cleared_at_ms BIGINT, 
	cleared_by TEXT NOT NULL, 
	CONSTRAINT pk_alarm PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_alarm_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "alarm" VALUES('default','018bcfe5-6800-7ab1-8ad8-4e61883c3582','p-1','overspeed','warning','','{}','active',0,'',1,2000,2000,NULL,NULL,'');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE audit (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant_id TEXT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	entity TEXT NOT NULL, 
	entity_id TEXT NOT NULL, 
	"before" TEXT, 
	"after" TEXT, 
	digest TEXT NOT NULL, 
	CONSTRAINT fk_audit_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "audit" VALUES(1,'default',1700000000000,'ann','create','product','pump',NULL,'{"authentication":"optional","created_at_ms":0,"enabled":true,"id":"pump","mapping":[],"model":{"events":{},"functions":{},"properties":{"speed":{"description":"","max_length":null,"maximum":200.0,"minimum":null,"name":"","type":"float","unit":null,"values":[],"writable":false}},"tags":{}},"name":"Pump","plugin_id":null,"registration":"preregistered","retention_days":30.0,"source":"api","tenant_id":"default","updated_at_ms":0}','38c17aba08992c44a42c4d57ea431d910e9b3c5bf3199778fe361f3fc9e74bce');
INSERT INTO "audit" VALUES(2,'default',1700000000000,'ann','create','device','p-1',NULL,'{"created_at_ms":0,"credential_source":null,"enabled":true,"id":"p-1","name":"","product_id":"pump","tags":{"site":"north"},"tenant_id":"default","updated_at_ms":0}','bdc39d4ce84fcbc964d4efec1a4b6c4adbba2d0f8c958a9cc4fbdd2555d9bc87');
INSERT INTO "audit" VALUES(3,'default',1700000000000,'ann','create','role','administrator',NULL,'{"id":"administrator","permissions":["*"],"tenant_id":"default"}','fce5954df6610ca729522a4c5bd52bd17805959dc39a866ef65bc7a58cf93dd9');
INSERT INTO "audit" VALUES(4,'default',1700000000000,'ann','create','user','u-1',NULL,'{"created_at_ms":0,"enabled":true,"id":"u-1","roles":["administrator"],"tenant_id":"default","updated_at_ms":0,"username":"admin"}','9054bd98401eee9747b36afc3b23ad7478ea6ec93b9fc1285356301c619d4084');
CREATE TABLE command (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	args TEXT NOT NULL, 
	status TEXT NOT NULL, 
	error TEXT NOT NULL, 
	result TEXT, 
	requested_by TEXT NOT NULL, 
	timeout_s FLOAT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	sent_at_ms BIGINT, 
	ended_at_ms BIGINT, 
	CONSTRAINT pk_command PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_command_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
CREATE TABLE dead_letter (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant_id TEXT NOT NULL, 
	product_id TEXT NOT NULL, 
	plugin_id TEXT NOT NULL, 
	device_id TEXT, 
	reason TEXT NOT NULL, 
	frame BLOB NOT NULL, 
	at_ms BIGINT NOT NULL, 
	CONSTRAINT fk_dead_letter_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "dead_letter" VALUES(1,'default','pump','x',NULL,'checksum',X'00FF',1);
CREATE TABLE device (
	"key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	product_id TEXT NOT NULL, 
	name TEXT DEFAULT '' NOT NULL, 
	tags TEXT DEFAULT '{}' NOT NULL, 
	enabled BOOLEAN DEFAULT 1 NOT NULL, 
	credential_digest TEXT, 
	credential_source TEXT, 
	online BOOLEAN DEFAULT 0 NOT NULL, 
	last_seen_ms BIGINT, 
	created_at_ms BIGINT NOT NULL, 
	updated_at_ms BIGINT NOT NULL, 
	CONSTRAINT fk_device_product FOREIGN KEY(tenant_id, product_id) REFERENCES product (tenant_id, id), 
	CONSTRAINT fk_device_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	CONSTRAINT uq_device_tenant_id_id UNIQUE (tenant_id, id)
);
INSERT INTO "device" VALUES(1,'default','p-1','pump','','{"site":"north"}',1,NULL,NULL,0,NULL,0,0);
CREATE TABLE event (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant_id TEXT NOT NULL, 
	type TEXT NOT NULL, 
	device_id TEXT, 
	at_ms BIGINT NOT NULL, 
	data TEXT NOT NULL, 
	CONSTRAINT fk_event_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "event" VALUES(1,'default','device.online','p-1',1000,'{}');
INSERT INTO "event" VALUES(2,'default','alarm.raised','p-1',2000,'{"alarm_id":"018bcfe5-6800-7ab1-8ad8-4e61883c3582","rule":"overspeed","severity":"warning","message":"","data":{}}');
CREATE TABLE latest (
	device_key INTEGER NOT NULL, 
	points TEXT NOT NULL, 
	CONSTRAINT pk_latest PRIMARY KEY (device_key), 
	CONSTRAINT fk_latest_device FOREIGN KEY(device_key) REFERENCES device ("key")
);
INSERT INTO "latest" VALUES(1,'{"speed":[250,"out_of_range",2000,2001]}');
CREATE TABLE ledger (
	name TEXT NOT NULL, 
	count BIGINT NOT NULL, 
	CONSTRAINT pk_ledger PRIMARY KEY (name)
);
INSERT INTO "ledger" VALUES('stored',2);
INSERT INTO "ledger" VALUES('shed:checksum',1);
INSERT INTO "ledger" VALUES('messages',2);
CREATE TABLE message (
	seq INTEGER NOT NULL, 
	device_key INTEGER NOT NULL, 
	observed_at_ms BIGINT NOT NULL, 
	received_at_ms BIGINT NOT NULL, 
	values_json TEXT NOT NULL, 
	quality_json TEXT, 
	CONSTRAINT pk_message PRIMARY KEY (seq), 
	CONSTRAINT fk_message_device FOREIGN KEY(device_key) REFERENCES device ("key")
);
INSERT INTO "message" VALUES(1,1,1000,1001,'{"speed":1.5}',NULL);
INSERT INTO "message" VALUES(2,1,2000,2001,'{"speed":250}','{"speed":"out_of_range"}');
CREATE TABLE notification (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	channel TEXT NOT NULL, 
	title TEXT NOT NULL, 
	text TEXT NOT NULL, 
	severity TEXT NOT NULL, 
	device_id TEXT, 
	link TEXT NOT NULL, 
	requested_by TEXT NOT NULL, 
	status TEXT NOT NULL, 
	attempts BIGINT NOT NULL, 
	last_error TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	ended_at_ms BIGINT, 
	CONSTRAINT pk_notification PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_notification_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "notification" VALUES('default','018bcfe5-6800-7ab1-8ad8-4e61883c3583','ops','Overspeed','p-1: 250','warning','p-1','','rule:overspeed','queued',0,'',2000,NULL);
CREATE TABLE product (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	plugin_id TEXT, 
	registration TEXT NOT NULL, 
	authentication TEXT NOT NULL, 
	model TEXT NOT NULL, 
	mapping TEXT NOT NULL, 
	retention_days FLOAT, 
	enabled BOOLEAN NOT NULL, 
	source TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	updated_at_ms BIGINT NOT NULL, stages TEXT DEFAULT '[]' NOT NULL, 
	CONSTRAINT pk_product PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_product_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "product" VALUES('default','pump','Pump',NULL,'preregistered','optional','{"properties":{"speed":{"type":"float","name":"","unit":null,"minimum":null,"maximum":200.0,"max_length":null,"values":[],"writable":false,"description":""}},"functions":{},"events":{},"tags":{}}','[]',30.0,1,'api',0,0,'[]');
CREATE TABLE report (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	plugin_id TEXT NOT NULL, 
	plugin_version TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	property_id TEXT NOT NULL, 
	from_ms BIGINT NOT NULL, 
	to_ms BIGINT NOT NULL, 
	args TEXT NOT NULL, 
	points BIGINT NOT NULL, 
	columns TEXT NOT NULL, 
	rows TEXT NOT NULL, 
	row_count BIGINT NOT NULL, 
	summary TEXT NOT NULL, 
	requested_by TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_report PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_report_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "report" VALUES('default','018bcfe5-6800-7ab1-8ad8-4e61883c3584','shift-report','1.0.0','p-1','speed',0,3000,'{}',2,'["shift","mean"]','[["early",125.75]]',1,'{"count":2}','ann',2000);
CREATE TABLE revoked_token (
	id TEXT NOT NULL, 
	expires_at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_revoked_token PRIMARY KEY (id)
);
CREATE TABLE role (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	permissions TEXT NOT NULL, 
	CONSTRAINT pk_role PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_role_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "role" VALUES('default','administrator','["*"]');
CREATE TABLE rule_state (
	tenant_id TEXT NOT NULL, 
	rule TEXT NOT NULL, 
	device_id TEXT NOT NULL, 
	data TEXT NOT NULL, 
	CONSTRAINT pk_rule_state PRIMARY KEY (tenant_id, rule, device_id), 
	CONSTRAINT fk_rule_state_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
INSERT INTO "rule_state" VALUES('default','overspeed','p-1','{"n":1}');
CREATE TABLE scene_run (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	scene TEXT NOT NULL, 
	status TEXT NOT NULL, 
	args TEXT NOT NULL, 
	started_by TEXT NOT NULL, 
	started_at_ms BIGINT NOT NULL, 
	ended_at_ms BIGINT, 
	wakes_at_ms BIGINT, 
	error TEXT NOT NULL, 
	log TEXT NOT NULL, 
	CONSTRAINT pk_scene_run PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_scene_run_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
CREATE TABLE schedule (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	scene TEXT NOT NULL, 
	cron TEXT NOT NULL, 
	timezone TEXT NOT NULL, 
	args TEXT NOT NULL, 
	enabled BOOLEAN NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	last_run_at_ms BIGINT, 
	next_run_at_ms BIGINT, 
	CONSTRAINT pk_schedule PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_schedule_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
CREATE TABLE tenant (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_tenant PRIMARY KEY (id)
);
INSERT INTO "tenant" VALUES('default','Default',0);
CREATE TABLE user_account (
	tenant_id TEXT NOT NULL, 
	id TEXT NOT NULL, 
	username TEXT NOT NULL, 
	password_hash TEXT NOT NULL, 
	roles TEXT NOT NULL, 
	enabled BOOLEAN NOT NULL, 
	created_at_ms BIGINT NOT NULL, 
	updated_at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_user_account PRIMARY KEY (tenant_id, id), 
	CONSTRAINT fk_user_account_tenant FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	CONSTRAINT uq_user_account_username UNIQUE (username)
);
INSERT INTO "user_account" VALUES('default','u-1','admin','none','["administrator"]',1,0,0);
CREATE INDEX ix_revoked_token_expires_at_ms ON revoked_token (expires_at_ms);
CREATE INDEX ix_audit_tenant_id_actor ON audit (tenant_id, actor);
CREATE INDEX ix_audit_tenant_id_entity ON audit (tenant_id, entity);
CREATE INDEX ix_device_tenant_id_product_id ON device (tenant_id, product_id);
CREATE INDEX ix_message_device_key_observed_at_ms ON message (device_key, observed_at_ms);
CREATE INDEX ix_event_tenant_id_device_id ON event (tenant_id, device_id);
CREATE INDEX ix_command_ended_at_ms ON command (ended_at_ms);
CREATE INDEX ix_command_tenant_id_device_id_created_at_ms ON command (tenant_id, device_id, created_at_ms);
CREATE INDEX ix_alarm_tenant_id_raised_at_ms ON alarm (tenant_id, raised_at_ms);
CREATE UNIQUE INDEX one_active_alarm ON alarm (tenant_id, device_id, rule) WHERE state = 'active';
CREATE INDEX ix_rule_state_tenant_id_device_id ON rule_state (tenant_id, device_id);
CREATE INDEX ix_scene_run_ended_at_ms ON scene_run (ended_at_ms);
CREATE INDEX ix_scene_run_tenant_id_started_at_ms ON scene_run (tenant_id, started_at_ms);
CREATE TRIGGER audit_refuses_UPDATE BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_refuses_DELETE BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE INDEX ix_notification_tenant_id_created_at_ms ON notification (tenant_id, created_at_ms);
CREATE INDEX ix_notification_ended_at_ms ON notification (ended_at_ms);
CREATE INDEX queued_notification ON notification (channel, id) WHERE status = 'queued';
CREATE INDEX ix_report_tenant_id_created_at_ms ON report (tenant_id, created_at_ms);
CREATE INDEX ix_report_created_at_ms ON report (created_at_ms);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('audit',4);
INSERT INTO "sqlite_sequence" VALUES('event',2);
INSERT INTO "sqlite_sequence" VALUES('device',1);
INSERT INTO "sqlite_sequence" VALUES('dead_letter',1);
COMMIT;
