// SPDX-License-Identifier: LGPL-2.1-or-later
/* Servers that take links. server.h tells. */
#include "server.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent.h"
#include "describe.h"
#include "json.h"
#include "link-list.h"

/* ---- what describes one ------------------------------------------------------ */

static int take(struct json_object *attrs, const char *key, char *out, size_t size)
{
	const char *text = "";

	if (!json_get_str(attrs, key, &text) && json_object_object_get_ex(attrs, key, NULL))
		return vol_fail(NULL, -EINVAL, "\"%s\" of a server is no text", key);
	if (strlen(text) >= size)
		return vol_fail(NULL, -EINVAL, "\"%s\" of a server has %zu bytes; at most %zu are possible", key, strlen(text), size - 1);
	for (const char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			return vol_fail(NULL, -EINVAL, "\"%s\" of a server has a control character in it", key);
	snprintf(out, size, "%s", text);
	return 0;
}

#define FIELD(kind, key) { kind, #key, offsetof(struct server, key), sizeof(((struct server *)0)->key) }
static const struct field { const char *kind, *key; size_t at, size; } fields[] = {
	FIELD("vm", qmp), FIELD("vm", domain), FIELD("vm", bus), FIELD("vm", agent),
	FIELD("nvme-tcp", host), FIELD("nvme-tcp", address), FIELD("nvme-tcp", port), FIELD("nvme-tcp", agent),
};
#define NFIELDS (sizeof(fields) / sizeof(fields[0]))

static bool made_of(const char *text, const char *besides)
{
	for (; *text; text++)
		if (!isascii((unsigned char)*text) || (!isalnum((unsigned char)*text) && !strchr(besides, *text)))
			return false;
	return true;
}

/* Decimal, without what strtoul() passes over. */
static bool is_port(const char *text)
{
	return *text >= '1' && *text <= '9' && strlen(text) <= 5 && made_of(text, "") && !text[strspn(text, "0123456789")] && atoi(text) < 65536;
}

static int check_vm(const struct server *s)
{
	if (!s->domain[0])
		return s->qmp[0] == '/' ? 0 : vol_fail(NULL, -EINVAL, "a server of kind vm needs \"qmp\", the absolute path of its QMP socket, or \"domain\"");
	if (s->qmp[0])
		return vol_fail(NULL, -EINVAL, "a server of kind vm has \"qmp\" or \"domain\", and not both");
	/* Names are words of virsh's arguments, which takes a number for something else, and names of files. */
	if (!isalnum((unsigned char)s->domain[0]) || !made_of(s->domain, "+_.:@-") || !s->domain[strspn(s->domain, "0123456789")])
		return vol_fail(NULL, -EINVAL, "\"domain\" of a server is made of letters, digits, and + _ . : @ -, begins with one of the first two, "
				"and is no number");
	if (s->bus[strspn(s->bus, "0123456789")] || strlen(s->bus) > 3)
		return vol_fail(NULL, -EINVAL, "\"bus\" of a domain is the index of its virtio-scsi controller, a number, and not \"%s\"", s->bus);
	return 0;
}

/* Names and addresses become directories of configfs, and words of other programs' arguments. */
static int check_nvme(struct server *s)
{
	struct in6_addr six;
	struct in_addr four;

	if (strncmp(s->host, "nqn.", 4) || !s->host[4] || !made_of(s->host, ".:_-"))
		return vol_fail(NULL, -EINVAL, "a server of kind nvme-tcp needs \"host\", its own NQN (nqn.…), of letters, digits, and . : _ -\n"
				"its agent tells it when it runs and has its key: leave --host out; or see /etc/nvme/hostnqn there");
	if (inet_pton(AF_INET, s->address, &four) == 1 ? !four.s_addr :
	    inet_pton(AF_INET6, s->address, &six) != 1 || IN6_IS_ADDR_UNSPECIFIED(&six))
		return vol_fail(NULL, -EINVAL, "a server of kind nvme-tcp needs \"address\", an IP address of this host that it can reach");
	if (!s->port[0])
		strcpy(s->port, "4420");
	if (!is_port(s->port))
		return vol_fail(NULL, -EINVAL, "\"port\" of a server is a number from 1 to 65535, not \"%s\"", s->port);
	return s->agent[0] ? 0 : vol_fail(NULL, -EINVAL, "a server of kind nvme-tcp needs \"agent\", HOST[:PORT] where vdagent runs");
}

/* HOST, HOST:PORT, [IPV6], [IPV6]:PORT */
static int check_agent(const char *agent)
{
	const char *port = strrchr(agent, ':'), *end = strrchr(agent, ']');

	if (port && ((end && port < end) || (!end && strchr(agent, ':') != port)))
		port = NULL;
	if (!isalnum((unsigned char)agent[agent[0] == '[']) || !made_of(agent, ".:_-[]") || (port && !is_port(port + 1)) ||
	    (!end && !port && strchr(agent, ':')))
		return vol_fail(NULL, -EINVAL, "\"agent\" of a server is HOST, HOST:PORT or [IPV6]:PORT, not \"%s\"", agent);
	return 0;
}

static int parse(struct json_object *attrs, struct server *s)
{
	int r;

	memset(s, 0, sizeof(*s));
	r = take(attrs, "kind", s->kind, sizeof(s->kind));
	if (r)
		return r;
	if (strcmp(s->kind, "vm") && strcmp(s->kind, "nvme-tcp"))
		return vol_fail(NULL, -EINVAL, "a server of kind \"%s\" is not known to this version of vd; \"vm\" and \"nvme-tcp\" are", s->kind);
	for (size_t i = 0; !r && i < NFIELDS; i++)
		if (!strcmp(fields[i].kind, s->kind))
			r = take(attrs, fields[i].key, (char *)s + fields[i].at, fields[i].size);
	if (!r && s->agent[0])
		r = check_agent(s->agent);
	return r ? r : !strcmp(s->kind, "vm") ? check_vm(s) : check_nvme(s);
}

int vol_check_server(struct json_object *attrs)
{
	struct server s;
	size_t i;
	int r = parse(attrs, &s);

	if (r)
		return r;
	json_object_object_foreach(attrs, key, v) {
		(void)v;
		for (i = 0; i < NFIELDS && (strcmp(fields[i].kind, s.kind) || strcmp(fields[i].key, key)); i++)
			;
		if (i == NFIELDS && strcmp(key, "kind"))
			return vol_fail(NULL, -EINVAL, "a server of kind %s has no \"%.60s\"", s.kind, key);
	}
	return 0;
}

/* Its agent and this host know each other by a key, which no pool ever has. */
static int see_to_key(const uint8_t uuid[16], const char *name, struct json_object *attrs)
{
	char other[VOL_NAME_SIZE];

	if (!*json_str(attrs, "agent"))
		return 0;
	if (!describe_server_other(uuid, name, other))
		vol_log(VOL_LOG_WARN, "the key of server %s is that of server %s/%s, too: who has one has the other\n"
			"if these are two machines, describe this one by another name", name, other, name);
	return server_key_make(name);
}

/* ---- this host's records, and the pool's ------------------------------------ */

int server_here(const char *pool, const uint8_t uuid[16], const char *name, struct server *out)
{
	struct json_object *attrs;
	int r = describe_server_find(uuid, name, &attrs);

	if (r)
		return r != -ENOENT ? r :
		       vol_fail(NULL, r, "server %s of pool %s has not been accepted on this host\n'vdserver show %s/%s' tells what it is; "
				"'vdserver accept %s/%s' has this host speak to it", name, pool, pool, name, pool, name);
	r = parse(attrs, out);
	snprintf(out->name, sizeof(out->name), "%s", name);
	json_object_put(attrs);
	return r;
}

static enum server_accepted accepted(const uint8_t uuid[16], const char *name, struct json_object *attrs)
{
	struct json_object *mine;
	bool same;

	if (describe_server_find(uuid, name, &mine))
		return SERVER_UNKNOWN;
	same = json_object_equal(mine, attrs);
	json_object_put(mine);
	return same ? SERVER_ACCEPTED : SERVER_DIFFERS;
}

struct lister { struct vol_pool *pool; const char *name; server_fn fn; void *arg; int r; };

static int list_part(void *arg, struct json_object *o)
{
	struct json_object *part, *list, *attrs;
	struct lister *ls = arg;
	uint8_t uuid[16];

	if (!json_get(o, "part", json_type_object, &part) || !json_get(part, "servers", json_type_array, &list))
		return 0;
	vol_pool_uuid(ls->pool, uuid);
	for (size_t i = 0; !ls->r && i < json_object_array_length(list); i++) {
		struct json_object *server = json_object_array_get_idx(list, i);
		struct server_info info = { .created = json_u64(server, "created") };

		if (!json_get(server, "attrs", json_type_object, &attrs))
			continue;
		snprintf(info.pool, sizeof(info.pool), "%s", vol_pool_name(ls->pool));
		snprintf(info.name, sizeof(info.name), "%s", json_str(server, "name"));
		info.attrs = attrs;
		info.accepted = accepted(uuid, info.name, attrs);
		ls->r = ls->fn(ls->arg, &info);
	}
	return ls->r;
}

static int list_open(struct vol_pool *p, const char *name, server_fn fn, void *arg)
{
	struct lister ls = { p, name, fn, arg, 0 };
	struct json_object *q = link_request("server-list", NULL);
	int r;

	if (name)
		json_set_str(q, "server", name);
	r = vol_call(p, q, list_part, &ls, NULL);
	json_object_put(q);
	return ls.r ? ls.r : r ? vol_fail(NULL, r, "%s", vol_error(p)) : 0;
}

static int list_pool(void *arg, const char *pool)
{
	struct lister *ls = arg;
	struct vol_pool *p;
	int r = vol_pool_open(pool, VOL_READONLY, &p), e;

	if (r)
		return r;
	r = list_open(p, ls->name, ls->fn, ls->arg);
	e = vol_pool_close(p);
	return r ? r : e;
}

int server_list(const char *pool, const char *name, server_fn fn, void *arg)
{
	struct lister ls = { NULL, name, fn, arg, 0 };

	return link_each_pool(pool, list_pool, &ls);
}

static int note_accepted(void *arg, const struct server_info *s)
{
	*(enum server_accepted *)arg = s->accepted;
	return 0;
}

int server_agreed(struct vol_pool *p, const char *name, struct server *out)
{
	enum server_accepted a = SERVER_UNKNOWN;
	uint8_t uuid[16];
	int r = list_open(p, name, note_accepted, &a);

	vol_pool_uuid(p, uuid);
	if (!r)
		r = server_here(vol_pool_name(p), uuid, name, out);
	if (!r && a != SERVER_ACCEPTED)
		r = vol_fail(NULL, -EPERM, "server %s of pool %s is not what was accepted on this host\n'vdserver show %s/%s' tells what it is; "
			     "'vdserver accept %s/%s' has this host take it so", name, vol_pool_name(p), vol_pool_name(p), name,
			     vol_pool_name(p), name);
	return r;
}

/* ---- changes ----------------------------------------------------------------- */

static struct json_object *request(const char *op, const char *name, bool test)
{
	struct json_object *q = link_request(op, NULL);

	json_set_str(q, "server", name);
	json_set_bool(q, "test", test);
	return q;
}

int server_add(const char *pool, const char *name, struct json_object *attrs, bool test)
{
	struct json_object *q;
	struct vol_pool *p;
	uint8_t uuid[16];
	int r = vol_check_server_name(name), e;

	if (!r)
		r = vol_check_server(attrs);
	if (!r)
		r = vol_pool_open(pool, test ? VOL_TEST : 0, &p);
	if (r)
		return r;
	q = request("server-add", name, test);
	json_set(q, "attrs", json_object_get(attrs));
	r = link_call(p, q, NULL);
	vol_pool_uuid(p, uuid);
	if (!r && !test)
		r = describe_server_add(vol_pool_name(p), uuid, name, attrs);
	if (!r && !test)
		r = see_to_key(uuid, name, attrs);
	e = vol_pool_close(p);
	return r ? r : e;
}

struct acceptor { uint8_t uuid[16]; bool test; };

static int accept_one(void *arg, const struct server_info *s)
{
	struct acceptor *a = arg;
	int r = vol_check_server(s->attrs);

	if (!r && !a->test)
		r = describe_server_add(s->pool, a->uuid, s->name, s->attrs);
	return r || a->test ? r : see_to_key(a->uuid, s->name, s->attrs);
}

int server_accept(const char *pool, const char *name, bool test)
{
	struct acceptor a = { .test = test };
	struct vol_pool *p;
	int r = vol_pool_open(pool, VOL_READONLY, &p), e;

	if (r)
		return r;
	vol_pool_uuid(p, a.uuid);
	r = list_open(p, name, accept_one, &a);
	e = vol_pool_close(p);
	return r ? r : e;
}

int server_remove(const char *pool, const char *name, bool test)
{
	char pool_name[VOL_NAME_SIZE], other[VOL_NAME_SIZE];
	struct vol_pool *p;
	uint8_t uuid[16];
	int lock, r = link_pool_name(pool, pool_name, uuid), e;

	/* No link is made to it between the look and the removal. */
	if (!r)
		r = link_lock(pool_name, &lock);
	if (r)
		return r;
	r = vol_pool_open(pool, test ? VOL_TEST : 0, &p);
	if (!r) {
		r = link_call(p, request("server-remove", name, test), NULL);
		if (!r && !test)
			r = describe_server_del(uuid, name);
		if (!r && !test && describe_server_other(uuid, name, other) == -ENOENT)
			r = server_key_remove(name);
		e = vol_pool_close(p);
		r = r ? r : e;
	}
	close(lock);
	return r;
}
