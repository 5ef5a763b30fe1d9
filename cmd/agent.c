// SPDX-License-Identifier: GPL-2.0-or-later
/* What a request is answered. agent.h tells. */
#include "agent.h"
#include "common.h"

#include <sys/utsname.h>

static int status(const struct agent *a, struct json_object *request, struct json_object *out)
{
	struct utsname u;

	(void)a, (void)request;
	json_set_str(out, "version", cmd_version());
	json_set_str(out, "host", uname(&u) ? "" : u.nodename);
	json_set(out, "drives", json_object_new_array());
	return 0;
}

static const struct {
	const char *name;
	int (*fn)(const struct agent *a, struct json_object *request, struct json_object *out);
} ops[] = {
	{ "status", status },
};

struct json_object *agent_answer(const struct agent *a, struct json_object *request)
{
	struct json_object *out = json_object_new_object();
	const char *op = json_str(request, "op");
	size_t i, n = sizeof(ops) / sizeof(ops[0]);
	int r;

	json_set_bool(out, "ok", true);
	for (i = 0; i < n && strcmp(ops[i].name, op); i++)
		;
	r = i < n ? ops[i].fn(a, request, out) :
	    vol_fail(NULL, -EOPNOTSUPP, "this vdagent (%s) knows no request \"%.40s\"", cmd_version(), op);
	if (r) {
		json_object_put(out);
		out = json_object_new_object();
		json_set_bool(out, "ok", false);
		json_set_u64(out, "errno", (uint64_t)-r);
		json_set_str(out, "error", vol_error(NULL));
	}
	return out;
}
