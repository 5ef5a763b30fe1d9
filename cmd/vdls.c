// SPDX-License-Identifier: GPL-2.0-or-later
/* vdls: lists volumes and snapshots. */
#include "common.h"

#include <stdlib.h>

static const struct poptOption options[] = {
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static const struct cmd_field fields[] = {
	{ "name", "Volume", CMD_TEXT, "name of the volume" },
	{ "pool", "Pool", CMD_TEXT, "pool it is in" },
	{ "path", "Path", CMD_TEXT, "POOL/VOLUME" },
	{ "attr", "Attr", CMD_TEXT, "v volume, s snapshot; w writable, r read-only; l locked; o open read-only, O read-write; d damaged" },
	{ "size", "Size", CMD_SIZE, "size it presents" },
	{ "mapped", "Mapped", CMD_SIZE, "space it maps, its own or shared" },
	{ "reserved", "Reserved", CMD_SIZE, "space kept for it" },
	{ "reserved_unused", "Unused", CMD_SIZE, "of the reserved, what it has not taken yet" },
	{ "percent", "Map%", CMD_PERCENT, "mapped, of its size" },
	{ "exclusive", "Own", CMD_SIZE, "space only it maps: what its removal frees (takes a walk of metadata)" },
	{ "shared", "Shared", CMD_SIZE, "space it shares (takes a walk of metadata)" },
	{ "metadata", "Meta", CMD_SIZE, "metadata of its mapping, one copy (takes a walk of metadata)" },
	{ "origin", "Origin", CMD_TEXT, "what it is a snapshot of" },
	{ "base", "Base", CMD_TEXT, "base image" },
	{ "created", "Created", CMD_TIME, "when it was made, UTC" },
	{ "uuid", "UUID", CMD_TEXT, "UUID" },
	{ "id", "Id", CMD_NUMBER, "number in the pool" },
	{ "family", "Family", CMD_NUMBER, "id of the first volume of all that share with it" },
	{ "readonly", "Readonly", CMD_TEXT, "true or false" },
	{ "damaged", "Damaged", CMD_TEXT, "true or false: metadata of it is lost; vdpool show tells what" },
	{ "locked", "Locked", CMD_TEXT, "true or false" },
	{ "lock_holder", "Lock holder", CMD_TEXT, "who holds its lock" },
	{ "opened_as", "Opened as", CMD_TEXT, "what it is open as, from its open pointers" },
	{ "mount", "Mounted on", CMD_TEXT, "where it is mounted, from its open pointers" },
	{ "holder", "Held by", CMD_TEXT, "who has it open, from its open pointers" },
	{ "attrs", "Attributes", CMD_TEXT, "attributes, KEY=VALUE" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

struct listing {
	struct cmd_report report;
	const char *pool;
};

static void append(char *buf, size_t size, const char *text)
{
	size_t n = strlen(buf);

	if (*text)
		snprintf(buf + n, size - n, "%s%s", n ? "," : "", text);
}

static void holder_text(struct json_object *h, char *buf, size_t size)
{
	snprintf(buf, size, "%s:%s:%llu", json_str(h, "hostname"), json_str(h, "purpose"),
		 (unsigned long long)json_u64(h, "pid"));
}

/* Adds to a volume as the library tells it the fields that only a list has. */
static void complete(struct json_object *v, const char *pool)
{
	char path[2 * VOL_NAME_SIZE], attr[8], as[1024] = "", mount[1024] = "", holders[1024] = "", text[256], pairs[1024] = "";
	struct json_object *pointers, *lock, *attrs;
	char open = '-';

	snprintf(path, sizeof(path), "%s/%s", pool, json_str(v, "name"));
	json_set_str(v, "pool", pool);
	json_set_str(v, "path", path);
	json_object_object_add(v, "percent", json_object_new_double(json_u64(v, "size") ?
		100.0 * (double)json_u64(v, "mapped") / (double)json_u64(v, "size") : 0));
	if (json_get(v, "pointers", json_type_array, &pointers)) {
		for (size_t i = 0; i < json_object_array_length(pointers); i++) {
			struct json_object *p = json_object_array_get_idx(pointers, i), *h;
			open = !strcmp(json_str(p, "mode"), "rw") || open == 'O' ? 'O' : 'o';
			append(as, sizeof(as), json_str(p, "opened_as"));
			append(mount, sizeof(mount), json_str(p, "mount"));
			if (json_get(p, "holder", json_type_object, &h)) {
				holder_text(h, text, sizeof(text));
				append(holders, sizeof(holders), text);
			}
		}
	}
	json_set_str(v, "opened_as", as);
	json_set_str(v, "mount", mount);
	json_set_str(v, "holder", holders);
	if (json_get(v, "lock", json_type_object, &lock)) {
		holder_text(lock, text, sizeof(text));
		if (json_flag(v, "lock_stale"))
			strncat(text, " (stale)", sizeof(text) - strlen(text) - 1);
		json_set_str(v, "lock_holder", text);
	}
	if (!cmd_json() && json_get(v, "attrs", json_type_object, &attrs)) {
		json_object_object_foreach(attrs, key, value) {
			snprintf(text, sizeof(text), "%s=%s", key, json_object_get_string(value));
			append(pairs, sizeof(pairs), text);
		}
		json_set_str(v, "attrs", pairs);
	}
	snprintf(attr, sizeof(attr), "%c%c%c%c", json_flag(v, "snapshot") ? 's' : 'v', json_flag(v, "readonly") ? 'r' : 'w',
		 json_flag(v, "locked") ? 'l' : '-', open);
	if (json_flag(v, "damaged"))
		strcat(attr, "d");
	json_set_str(v, "attr", attr);
}

static int on_volumes(void *arg, struct json_object *part)
{
	struct listing *l = arg;
	struct json_object *list;

	if (!json_get(part, "volumes", json_type_array, &list))
		return 0;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *v = json_object_get(json_object_array_get_idx(list, i));
		complete(v, l->pool);
		cmd_report_add(&l->report, v);
	}
	return 0;
}

static int measure(struct vol_pool *pool, struct listing *l, size_t from)
{
	static const char *const keys[] = { "exclusive", "shared", "metadata" };

	if (!cmd_report_wants(&l->report, "exclusive") && !cmd_report_wants(&l->report, "shared") &&
	    !cmd_report_wants(&l->report, "metadata"))
		return 0;
	for (size_t i = from; i < json_object_array_length(l->report.rows); i++) {
		struct json_object *v = json_object_array_get_idx(l->report.rows, i), *u;
		int r = cmd_call(pool, cmd_request_on("usage", json_str(v, "name")), NULL, NULL, &u);
		if (r == -EINTR)
			return r;
		if (r)
			continue; /* said already; the others are still of use */
		for (unsigned k = 0; k < 3; k++)
			json_set_u64(v, keys[k], json_u64(u, keys[k]));
		json_object_put(u);
	}
	return 0;
}

static int list_pool(struct listing *l, const char *pool_name, const char *volume)
{
	struct json_object *q = cmd_request("list"), *names;
	size_t from = json_object_array_length(l->report.rows);
	struct vol_pool *pool;
	int code = 0, r;

	if (volume) {
		names = json_object_new_array();
		json_object_array_add(names, json_object_new_string(volume));
		json_set(q, "names", names);
	}
	pool = cmd_open(pool_name, VOL_READONLY, &code);
	if (!pool) {
		json_object_put(q);
		return code;
	}
	l->pool = vol_pool_name(pool);
	r = cmd_call(pool, q, on_volumes, l, NULL);
	if (!r)
		r = measure(pool, l, from);
	return cmd_close(pool, cmd_exit_code(r));
}

static int list_all(struct listing *l)
{
	struct vol_found *found;
	char uuid[VOL_UUID_TEXT];
	size_t n;
	int code = 0, r;

	r = vol_find_members(&found, &n);
	if (r)
		return cmd_failed(NULL, r);
	for (size_t i = 0; i < n; i++) {
		bool seen = found[i].error != 0;
		for (size_t k = 0; k < i && !seen; k++)
			seen = !found[k].error && !memcmp(found[k].pool, found[i].pool, 16);
		if (seen)
			continue;
		vol_uuid_text(found[i].pool, uuid);
		r = list_pool(l, uuid, NULL);
		code = code ? code : r;
	}
	vol_found_free(found, n);
	return code;
}

int main(int argc, char **argv)
{
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	struct listing l = { 0 };
	struct cmd_args a;
	int code, r;

	cmd_parse(&a, argc, argv, options, "[POOL | POOL/VOLUME]...", 0, 4096, NULL);
	code = cmd_report_init(&l.report, "volume", fields,
			       a.n == 1 ? "name,attr,size,mapped,percent,origin,opened_as" :
					  "name,pool,attr,size,mapped,percent,origin,opened_as");
	if (code)
		return code;
	if (!a.n)
		code = list_all(&l);
	for (unsigned i = 0; i < a.n; i++) {
		r = vol_parse_object(a.arg[i], pool, volume);
		r = r ? cmd_failed(NULL, r) : list_pool(&l, pool, volume[0] ? volume : NULL);
		code = code ? code : r;
	}
	cmd_report_print(&l.report);
	cmd_args_free(&a);
	return code;
}
