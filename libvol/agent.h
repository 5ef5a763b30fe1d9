/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A server's agent, vdagent(8): a process on that machine which finds drives there, mounts them, and lets go
 * of them.  It is asked by running `vdagent ask` here, which has the cryptography: both know a key,
 * $VD_CONFIG_DIR/keys/SERVER.key on this host.
 *
 * Neither side believes the other: of an answer only what is told below is taken, of the shape told
 * there, and nothing of it becomes a path on this host or a word of a command.
 *
 * Each question is bounded in time, and may be asked again: whoever does not know what became of one asks
 * it once more.
 * Texts are in vol_error(NULL).  Of all: -ENOTCONN it does not answer, or not in time; -EPROTO its answer is
 * nonsense; -EREMOTEIO it refused (text: why); -EINTR.
 */
#ifndef VOL_AGENT_H
#define VOL_AGENT_H

#include "link.h"
#include "server.h"

/* It answers; sets s->dhchap.  -EPERM: it is another machine than the description says. */
int agent_ready(struct server *s) __must_check;
/* The NQN of a server that is yet to be described: for its description, which checks it. */
int agent_host(const char *name, const char *agent, char host[224]) __must_check;
/* The server has the drive, of l->size; with `spec` it is mounted as that says.  via: how it gets there, consumed.
 * Sets l->address (but of a VM: its name there, now), and with `spec` l->mount, l->content.type and l->note. */
int agent_link(const struct server *s, struct link_info *l, const struct link_spec *spec, struct json_object *via) __must_check;
/* It lets go: 0 also when it has no such drive.  -EBUSY: in use there (text: by whom), and nothing was undone.
 * test: whether it would.  finish: no -EINTR. */
int agent_unlink(const struct server *s, const struct link_info *l, bool test, bool finish) __must_check;
/* After it was taken away from a machine: on return the server has noticed.  (In a VM it went when it was let go.) */
int agent_gone(const struct server *s, const struct link_info *l, struct json_object *via, bool finish) __must_check;

/* Path of a server's key. */
void server_key_path(const char *server, char *buf, size_t size);
/* A new one, unless there is one. */
int server_key_make(const char *server) __must_check;
/* 0 also when there is none. */
int server_key_remove(const char *server) __must_check;
/* The secret by which the kernels authenticate the server's connections, as both derive it from the key. */
#define AGENT_SECRET 128
int server_secret(const struct server *s, char secret[AGENT_SECRET]) __must_check;

#endif
