/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channel between a host and the agent of a server: TLS 1.3 with a key that both have, and
 * in it JSON objects, a line each: one request, one answer, until either side closes.
 *
 * A side that has not shown that it has the key costs the other a handshake of 10 s at most, and is sent
 * nothing.  What one that has it sends costs bounded memory (a request of 64 KiB, an answer of 1 MiB, 8 levels of
 * nesting)
 * and bounded time (a line begun ends within 10 s).  Deadlines are in vol_now_ms()'s time.
 *
 * Texts in vol_error(NULL).
 */
#ifndef VD_AGENT_CHANNEL_H
#define VD_AGENT_CHANNEL_H

#include "../libvol/host.h"
#include "../libvol/json.h"

#define AGENT_PORT "8653"
#define AGENT_KEY 32
#define AGENT_LINE (64u << 10) /* a request with its end */
#define AGENT_ANSWER (1u << 20)
#define AGENT_BEGUN_MS 10000   /* a handshake, or a line that was begun */

/* 64 hexadecimal digits, in a file that is this user's and nobody else may read. */
int agent_key_read(const char *path, uint8_t key[AGENT_KEY]) __must_check;
/* Makes a file with a new one. -EEXIST: there is one. */
int agent_key_make(const char *path) __must_check;
/* What the kernels prove to each other that they have, made from the one in a file: "DHHC-1:01:…:". */
#define AGENT_DHCHAP 64
int agent_key_dhchap(const char *path, char secret[AGENT_DHCHAP]) __must_check;

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT", or an address of IPv6. -EINVAL. */
struct agent_address { char host[256], port[8]; };
int agent_address_parse(const char *text, struct agent_address *a) __must_check;

struct agent_channel;
/* With the key in a file. -EACCES: the other side has another key. */
int agent_channel_connect(const struct agent_address *to, const char *path, int64_t deadline, struct agent_channel **out) __must_check;
/* The descriptor stays the caller's, to be closed after the channel. */
int agent_channel_accept(int fd, const uint8_t key[AGENT_KEY], int64_t deadline, struct agent_channel **out) __must_check;
/* NULL is allowed. */
void agent_channel_close(struct agent_channel *c);

/* The newline is added. -EMSGSIZE. */
int agent_channel_send(struct agent_channel *c, const char *line, int64_t deadline) __must_check;
/* One that begins before the deadline; *line is the channel's until the next call. -ENODATA: the other side
 * closed; -ETIMEDOUT, -EMSGSIZE. */
int agent_channel_line(struct agent_channel *c, int64_t deadline, char **line, size_t *len) __must_check;

#endif
