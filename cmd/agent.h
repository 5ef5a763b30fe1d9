/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent of a server: makes drives that a host gives to this machine its block devices, mounts
 * them, and takes them away again.
 *
 *   agent-channel.c  keys, TLS, lines
 *   agent-serve.c    connections, a thread each
 *   agent.c          what a request is answered
 *
 * The host is believed as little as a stranger: it has the key, and that lets it ask for what
 * these files allow.
 */
#ifndef VD_AGENT_H
#define VD_AGENT_H

#include "agent-channel.h"

#define AGENT_DIRS 16

struct agent {
	const char *listen;          /* NULL: every address, AGENT_PORT */
	const char *key;
	const char *dir[AGENT_DIRS]; /* below which it may mount */
	unsigned ndirs;
	int trust_options;           /* of mounts */
};

/* Serves until vol_interrupt(); says to systemd when it is ready. */
int agent_serve(const struct agent *a) __must_check;

/* Never NULL but for want of memory: {"ok":true,…} or {"ok":false,"errno":N,"error":TEXT}. Any thread. */
struct json_object *agent_answer(const struct agent *a, struct json_object *request);

#endif
