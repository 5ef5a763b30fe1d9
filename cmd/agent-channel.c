// SPDX-License-Identifier: GPL-2.0-or-later
/* Keys, and the channel. agent-channel.h tells. */
#include "agent-channel.h"

#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDENTITY "vd"
/* No certificates, no earlier versions, and a fresh secret in each conversation: who takes the key later
 * cannot read what was said before. */
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK"
#define FLAGS (GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS)

struct agent_channel {
	int fd;
	gnutls_session_t session;
	bool is_server; /* whose descriptor is its caller's */
	union { gnutls_psk_client_credentials_t client; gnutls_psk_server_credentials_t server; } credentials;
	const uint8_t *key; /* while the server's handshake lasts */
	char peer[288];
	size_t have, used; /* bytes in buf; those of the line that was given out */
	size_t room, most; /* of buf; of a line that is sent */
	char buf[];
};

/* ---- keys ------------------------------------------------------------------ */

static int hex(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static int key_parse(const char *text, ssize_t n, uint8_t key[AGENT_KEY])
{
	if (n < 2 * AGENT_KEY || n > 2 * AGENT_KEY + 1 || (n == 2 * AGENT_KEY + 1 && text[n - 1] != '\n'))
		return -EINVAL;
	for (unsigned i = 0; i < AGENT_KEY; i++) {
		int hi = hex(text[2 * i]), lo = hex(text[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		key[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

int agent_key_read(const char *path, uint8_t key[AGENT_KEY])
{
	char text[2 * AGENT_KEY + 2];
	struct stat st;
	ssize_t n;
	int fd, r;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return vol_fail(NULL, -ENOENT, "there is no key %s; 'vdagent key %s' makes one, and the other side needs the same", path, path);
	if (fd < 0)
		return vol_fail(NULL, -errno, "the key %s cannot be read: %s", path, vol_strerror(-errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		r = vol_fail(NULL, -EINVAL, "the key %s is not a file", path);
	else if (st.st_uid != geteuid() || st.st_mode & 077)
		r = vol_fail(NULL, -EPERM, "the key %s may be read by others, or is another user's: it is not used\n"
			     "if nobody can have seen it: 'chown root %s; chmod 600 %s'; else make a new one", path, path, path);
	else {
		n = read(fd, text, sizeof(text));
		r = key_parse(text, n, key);
		if (r)
			vol_fail(NULL, r, "the key %s is not %d hexadecimal digits in one line", path, 2 * AGENT_KEY);
		explicit_bzero(text, sizeof(text));
	}
	close(fd);
	return r;
}

/* Under its own name when it is whole: who looks sees none, or a key. */
int agent_key_make(const char *path)
{
	char text[2 * AGENT_KEY + 2], *new = NULL;
	uint8_t key[AGENT_KEY];
	int fd = -1, r = 0;

	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return vol_fail(NULL, -EIO, "no random bytes: %s", vol_strerror(-errno));
	for (unsigned i = 0; i < AGENT_KEY; i++)
		snprintf(text + 2 * i, 3, "%02x", key[i]);
	strcat(text, "\n");
	if (asprintf(&new, "%s.XXXXXX", path) < 0)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	fd = mkostemp(new, O_CLOEXEC); /* 0600 */
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) || link(new, path))
		r = errno == EEXIST ? vol_fail(NULL, -EEXIST, "%s is there already; it is not overwritten", path) :
		    vol_fail(NULL, errno ? -errno : -EIO, "%s cannot be written: %s", path, vol_strerror(-errno));
	if (fd >= 0) {
		close(fd);
		unlink(new);
	}
	free(new);
	explicit_bzero(text, sizeof(text));
	explicit_bzero(key, sizeof(key));
	return r;
}

/* The form that nvme-cli has given to such secrets: the bytes and their CRC-32, in Base64. */
static int dhchap(const uint8_t key[AGENT_KEY], char secret[AGENT_DHCHAP])
{
	static const char salt[] = "vd dhchap host";
	uint8_t raw[32 + 4];
	gnutls_datum_t in = { raw, sizeof(raw) }, out;
	uint32_t crc = 0xffffffff;

	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, AGENT_KEY, salt, strlen(salt), raw))
		return vol_fail(NULL, -EIO, "HMAC-SHA256 failed");
	for (unsigned i = 0; i < 32; i++) {
		crc ^= raw[i];
		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	crc = htole32(~crc);
	memcpy(raw + 32, &crc, 4);
	if (gnutls_base64_encode2(&in, &out))
		return vol_fail(NULL, -ENOMEM, "out of memory");
	snprintf(secret, AGENT_DHCHAP, "DHHC-1:01:%s:", (char *)out.data);
	gnutls_memset(out.data, 0, out.size);
	gnutls_free(out.data);
	explicit_bzero(raw, sizeof(raw));
	return 0;
}

int agent_key_dhchap(const char *path, char secret[AGENT_DHCHAP])
{
	uint8_t key[AGENT_KEY];
	int r = agent_key_read(path, key);

	if (!r)
		r = dhchap(key, secret);
	explicit_bzero(key, sizeof(key));
	return r;
}

/* ---- addresses --------------------------------------------------------------- */

int agent_address_parse(const char *text, struct agent_address *a)
{
	const char *host = text, *end, *port = NULL;
	size_t n;

	if (*text == '[') {
		host++;
		end = strchr(host, ']');
		if (end && end[1] == ':')
			port = end + 2;
		else if (end && end[1])
			end = NULL;
	} else {
		end = strchr(host, ':');
		if (end && strchr(end + 1, ':'))
			end = host + strlen(host);
		else if (end)
			port = end + 1;
		else
			end = host + strlen(host);
	}
	n = end ? (size_t)(end - host) : 0;
	if (!n || n >= sizeof(a->host))
		return vol_fail(NULL, -EINVAL, "\"%.300s\" is no address; wanted: HOST, HOST:PORT or [ADDRESS]:PORT", text);
	if (!port)
		port = AGENT_PORT;
	if (!*port || strlen(port) > 5 || strspn(port, "0123456789") != strlen(port) || atoi(port) < 1 || atoi(port) > 65535)
		return vol_fail(NULL, -EINVAL, "\"%.300s\": the port is a number from 1 to 65535", text);
	memcpy(a->host, host, n);
	a->host[n] = 0;
	strcpy(a->port, port);
	return 0;
}

/* ---- a channel ------------------------------------------------------------------ */

static int wait_for(struct agent_channel *c, short events, int64_t deadline)
{
	for (;;) {
		struct pollfd p = { c->fd, events, 0 };
		int64_t left = deadline - vol_now_ms();
		int n;

		if (vol_interrupted())
			return vol_fail(NULL, -EINTR, "interrupted");
		if (left <= 0)
			return vol_fail(NULL, -ETIMEDOUT, "%s does not answer in time", c->peer);
		n = poll(&p, 1, left > INT32_MAX ? INT32_MAX : (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return vol_fail(NULL, -errno, "%s: %s", c->peer, vol_strerror(-errno));
	}
}

/* TLS wants to read or write before it can go on; or r is an end. */
static int again(struct agent_channel *c, int r, int64_t deadline)
{
	if (r == GNUTLS_E_INTERRUPTED && vol_now_ms() < deadline)
		return 0;
	if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
		return wait_for(c, gnutls_record_get_direction(c->session) ? POLLOUT : POLLIN, deadline);
	if (r == GNUTLS_E_PREMATURE_TERMINATION || r == GNUTLS_E_PULL_ERROR || r == GNUTLS_E_PUSH_ERROR)
		return vol_fail(NULL, -ECONNRESET, "%s broke the connection", c->peer);
	return vol_fail(NULL, -EPROTO, "%s: %s", c->peer, gnutls_strerror(r));
}

static struct agent_channel *new_channel(bool server)
{
	size_t room = server ? AGENT_LINE : AGENT_ANSWER;
	struct agent_channel *c = calloc(1, sizeof(*c) + room);

	if (!c) {
		vol_fail(NULL, -ENOMEM, "out of memory");
		return NULL;
	}
	c->fd = -1;
	c->is_server = server;
	c->room = room;
	c->most = server ? AGENT_ANSWER : AGENT_LINE;
	return c;
}

void agent_channel_close(struct agent_channel *c)
{
	if (!c)
		return;
	if (c->session) {
		gnutls_bye(c->session, GNUTLS_SHUT_WR); /* does not wait */
		gnutls_deinit(c->session);
	}
	if (c->credentials.client && !c->is_server)
		gnutls_psk_free_client_credentials(c->credentials.client);
	if (c->credentials.server && c->is_server)
		gnutls_psk_free_server_credentials(c->credentials.server);
	if (!c->is_server && c->fd >= 0)
		close(c->fd);
	free(c);
}

static int tls_fail(struct agent_channel *c, int r)
{
	return vol_fail(NULL, -ENOMEM, "%s: no TLS: %s", c->peer, gnutls_strerror(r));
}

static int handshake(struct agent_channel *c, int64_t deadline)
{
	int e, r;

	gnutls_transport_set_int(c->session, c->fd);
	while ((e = gnutls_handshake(c->session))) {
		if (e == GNUTLS_E_AGAIN || !gnutls_error_is_fatal(e)) {
			r = again(c, e == GNUTLS_E_AGAIN ? e : GNUTLS_E_INTERRUPTED, deadline);
			if (r)
				return r;
			continue;
		}
		if (e == GNUTLS_E_PREMATURE_TERMINATION || e == GNUTLS_E_PULL_ERROR || e == GNUTLS_E_PUSH_ERROR)
			return again(c, e, deadline);
		gnutls_alert_send_appropriate(c->session, e);
		return vol_fail(NULL, -EACCES, "%s has another key, or is no vdagent (%s)", c->peer, gnutls_strerror(e));
	}
	/* Nothing else was offered; it is what all of this stands on, so it is looked at. */
	if (gnutls_protocol_get_version(c->session) != GNUTLS_TLS1_3 || gnutls_kx_get(c->session) != GNUTLS_KX_ECDHE_PSK)
		return vol_fail(NULL, -EACCES, "%s did not show that it has the key", c->peer);
	return 0;
}

/* ---- the host's side ---------------------------------------------------------------- */

static int connect_one(struct agent_channel *c, const struct addrinfo *ai, int64_t deadline)
{
	socklen_t size = sizeof(int);
	int e = 0, on = 1, r;

	c->fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
	if (c->fd < 0)
		return vol_fail(NULL, -errno, "no socket: %s", vol_strerror(-errno));
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (!connect(c->fd, ai->ai_addr, ai->ai_addrlen))
		return 0;
	e = errno;
	if (e == EINPROGRESS) {
		r = wait_for(c, POLLOUT, deadline);
		if (r)
			return r;
		if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &size))
			e = errno;
	}
	return e ? vol_fail(NULL, -e, "%s cannot be reached: %s", c->peer, e == ECONNREFUSED ? "no vdagent listens there" : vol_strerror(-e)) : 0;
}

static int connect_any(struct agent_channel *c, const struct agent_address *to, int64_t deadline)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	int r = getaddrinfo(to->host, to->port, &hints, &list);

	if (r)
		return vol_fail(NULL, -EHOSTUNREACH, "%s: %s", to->host, gai_strerror(r));
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		r = connect_one(c, ai, deadline);
		if (!r || r == -EINTR || r == -ETIMEDOUT || !ai->ai_next)
			break;
		if (c->fd >= 0)
			close(c->fd);
		c->fd = -1;
	}
	freeaddrinfo(list);
	return r;
}

static int connect_with(const uint8_t key[AGENT_KEY], const struct agent_address *to, int64_t deadline, struct agent_channel **out)
{
	struct agent_channel *c = new_channel(false);
	const gnutls_datum_t secret = { (uint8_t *)key, AGENT_KEY };
	int e, r;

	if (!c)
		return -ENOMEM;
	snprintf(c->peer, sizeof(c->peer), strchr(to->host, ':') ? "[%s]:%s" : "%s:%s", to->host, to->port);
	r = connect_any(c, to, deadline);
	if (!r && ((e = gnutls_init(&c->session, GNUTLS_CLIENT | FLAGS)) || (e = gnutls_priority_set_direct(c->session, PRIORITY, NULL)) ||
		   (e = gnutls_psk_allocate_client_credentials(&c->credentials.client)) ||
		   (e = gnutls_psk_set_client_credentials(c->credentials.client, IDENTITY, &secret, GNUTLS_PSK_KEY_RAW)) ||
		   (e = gnutls_credentials_set(c->session, GNUTLS_CRD_PSK, c->credentials.client))))
		r = tls_fail(c, e);
	if (!r)
		r = handshake(c, deadline);
	if (r)
		agent_channel_close(c);
	else
		*out = c;
	return r;
}

int agent_channel_connect(const struct agent_address *to, const char *path, int64_t deadline, struct agent_channel **out)
{
	uint8_t key[AGENT_KEY];
	int r = agent_key_read(path, key);

	if (!r)
		r = connect_with(key, to, deadline, out);
	explicit_bzero(key, sizeof(key));
	return r;
}

/* ---- the server's side ---------------------------------------------------------------- */

static int give_key(gnutls_session_t session, const char *identity, gnutls_datum_t *out)
{
	struct agent_channel *c = gnutls_session_get_ptr(session);

	if (strcmp(identity, IDENTITY))
		return -1;
	out->data = gnutls_malloc(AGENT_KEY);
	if (!out->data)
		return -1;
	memcpy(out->data, c->key, AGENT_KEY);
	out->size = AGENT_KEY;
	return 0;
}

int agent_channel_accept(int fd, const uint8_t key[AGENT_KEY], int64_t deadline, struct agent_channel **out)
{
	struct agent_channel *c = new_channel(true);
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	char host[128], port[16];
	int e, on = 1, r = 0;

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	c->key = key;
	if (getpeername(fd, (struct sockaddr *)&from, &size) ||
	    getnameinfo((struct sockaddr *)&from, size, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		strcpy(host, "somebody");
	snprintf(c->peer, sizeof(c->peer), "%s", host);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if ((e = gnutls_init(&c->session, GNUTLS_SERVER | FLAGS)) || (e = gnutls_priority_set_direct(c->session, PRIORITY, NULL)) ||
	    (e = gnutls_psk_allocate_server_credentials(&c->credentials.server)) || (e = gnutls_credentials_set(c->session, GNUTLS_CRD_PSK, c->credentials.server)))
		r = tls_fail(c, e);
	if (!r) {
		gnutls_session_set_ptr(c->session, c);
		gnutls_psk_set_server_credentials_function(c->credentials.server, give_key);
		r = handshake(c, deadline);
	}
	c->key = NULL;
	if (r)
		agent_channel_close(c);
	else
		*out = c;
	return r;
}

/* ---- lines ------------------------------------------------------------------------------- */

int agent_channel_send(struct agent_channel *c, const char *line, int64_t deadline)
{
	size_t len = strlen(line), sent = 0;
	ssize_t n;
	int r;

	if (len >= c->most || memchr(line, '\n', len))
		return vol_fail(NULL, -EMSGSIZE, "more than one line, or one that is longer than %zu bytes", c->most - 1);
	while (sent < len + 1) {
		n = sent < len ? gnutls_record_send(c->session, line + sent, len - sent) : gnutls_record_send(c->session, "\n", 1);
		if (n > 0) {
			sent += (size_t)n;
			continue;
		}
		r = again(c, (int)n, deadline);
		if (r)
			return r;
	}
	return 0;
}

int agent_channel_line(struct agent_channel *c, int64_t deadline, char **line, size_t *len)
{
	size_t looked = 0;
	char *end;
	ssize_t n;
	int r;

	c->have -= c->used;
	memmove(c->buf, c->buf + c->used, c->have);
	c->used = 0;
	if (c->have)
		deadline = vol_now_ms() + AGENT_BEGUN_MS;
	for (;;) {
		end = memchr(c->buf + looked, '\n', c->have - looked);
		if (end) {
			*end = 0;
			*line = c->buf;
			*len = (size_t)(end - c->buf);
			c->used = *len + 1;
			return 0;
		}
		looked = c->have;
		if (c->have == c->room)
			return vol_fail(NULL, -EMSGSIZE, "a line is longer than %zu bytes", c->room - 1);
		n = gnutls_record_recv(c->session, c->buf + c->have, c->room - c->have);
		if (n > 0) {
			if (!c->have)
				deadline = vol_now_ms() + AGENT_BEGUN_MS;
			c->have += (size_t)n;
			continue;
		}
		if (!n || (n == GNUTLS_E_PREMATURE_TERMINATION && !c->have))
			return vol_fail(NULL, -ENODATA, "%s closed the connection", c->peer);
		r = again(c, (int)n, deadline);
		if (r)
			return r;
	}
}
