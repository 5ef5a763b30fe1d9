// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What a host sends the agent of a server, and what is in the agent's records: the input is a line.
 *
 * What is taken for a drive must be one: each text ends, has no character that a terminal, a mount or the kernel's list
 * of options would take for more, and the same drive comes from what would be written to disk.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cmd/agent-drive.c"

/* No others are mounted. */
int agent_record_list(struct agent_drive **list, size_t *n)
{
	*list = NULL;
	*n = 0;
	return 0;
}

static void fault(const char *what, const char *text)
{
	fprintf(stderr, "FAULT: %s: %s\n", what, text);
	abort();
}

static void check_text(const char *what, const char *s, size_t size, const char *never)
{
	if (strnlen(s, size) == size)
		fault(what, "has no end");
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 127 || strchr(never, *s))
			fault(what, s);
}

static void check_drive(const struct agent_drive *d)
{
	static const struct agent strict = { .dir = { "/dev/null/nothing" }, .ndirs = 1 }, trusting = { .dir = { "/" }, .ndirs = 1, .trust_options = 1 };
	struct agent_drive again;
	struct json_object *o;
	const char *text;
	char dir[256];

	check_text("name", d->name, sizeof(d->name), " ,");
	check_text("nqn", d->nqn, sizeof(d->nqn), " ,=/");
	check_text("address", d->address, sizeof(d->address), " ,=/");
	check_text("port", d->port, sizeof(d->port), " ,=/");
	check_text("dir", d->dir, sizeof(d->dir), "");
	check_text("options", d->options, sizeof(d->options), " \\\"'");
	check_text("mkfs", d->mkfs, sizeof(d->mkfs), " ,=/.-");
	if (!strchr(d->name, '/') || !d->size || d->size % 512)
		fault("a drive that is none", d->name);
	if (d->nvme && strncmp(d->nqn, AGENT_NQN, strlen(AGENT_NQN)))
		fault("another's subsystem", d->nqn);
	if (d->dir[0] && (d->dir[0] != '/' || !d->dir[1] || strstr(d->dir, "//") || strstr(d->dir, "/../") || strstr(d->dir, "/./")))
		fault("a directory", d->dir);
	if (d->mount && !agent_drive_allowed(&strict, d, dir))
		fault("allowed where nothing is", d->dir);
	if (!agent_drive_allowed(&trusting, d, dir))
		check_text("place", dir, sizeof(dir), "");
	o = agent_drive_json(d);
	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY);
	if (agent_drive_parse(o, &again) || memcmp(d, &again, sizeof(again)))
		fault("its record is of another", text);
	json_object_put(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct agent_drive d;
	struct json_object *o;
	uint8_t uuid[16];
	char nqn[224], *line = malloc(size + 1);

	if (!line)
		return 0;
	memcpy(line, data, size);
	line[size] = 0;
	if (!agent_json_parse(line, size, &o)) {
		if (!agent_drive_parse(o, &d))
			check_drive(&d);
		if (!agent_nqn_parse(o, nqn))
			check_text("nqn", nqn, sizeof(nqn), " ,=/");
		(void)!agent_uuid_parse(o, uuid);
		json_object_put(o);
	}
	free(line);
	return 0;
}
