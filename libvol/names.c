// SPDX-License-Identifier: LGPL-2.1-or-later
/* Names, sizes and UUIDs as people write them. */
#include "host.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define POOL_EXTRA "+_.-"
#define VOLUME_EXTRA "+_.@:-"

static int check_name(const char *what, const char *name, size_t len, const char *extra)
{
	if (len == 0)
		return vol_fail(NULL, -EINVAL, "a %s needs a name, and this one is empty", what);
	if (len > VD_NAME_MAX)
		return vol_fail(NULL, -EINVAL, "%s name \"%.40s…\" has %zu bytes; at most %u are possible",
				what, name, len, VD_NAME_MAX);
	if (name[0] == '-')
		return vol_fail(NULL, -EINVAL, "%s name \"%.*s\" begins with -, which would be taken for an option",
				what, (int)len, name);
	if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return vol_fail(NULL, -EINVAL, "%s name \"%.*s\" means a directory; choose another", what, (int)len, name);
	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		if (isalnum((unsigned char)c) || strchr(extra, c))
			continue;
		return vol_fail(NULL, -EINVAL, "%s name \"%.*s\": byte %zu is none of a-z A-Z 0-9 %s",
				what, (int)len, name, i + 1, extra);
	}
	return 0;
}

int vol_check_pool_name(const char *name)
{
	return check_name("pool", name, strlen(name), POOL_EXTRA);
}

int vol_check_volume_name(const char *name)
{
	return check_name("volume", name, strlen(name), VOLUME_EXTRA);
}

int vol_check_server_name(const char *name)
{
	int r = check_name("server", name, strlen(name), POOL_EXTRA);

	if (r)
		return r;
	if (strlen(name) > VD_SERVER_NAME_MAX)
		return vol_fail(NULL, -EINVAL, "server name \"%.40s…\" has %zu bytes; at most %u are possible", name, strlen(name),
				VD_SERVER_NAME_MAX);
	if (name[0] == '.')
		return vol_fail(NULL, -EINVAL, "server name \"%s\" begins with a dot", name);
	if (!strcmp(name, VOL_SERVER_LOCAL))
		return vol_fail(NULL, -EINVAL, "server \"" VOL_SERVER_LOCAL "\" is this host, and is always there");
	return 0;
}

int vol_parse_object(const char *text, char pool[VOL_NAME_SIZE], char volume[VOL_NAME_SIZE])
{
	static const char dir[] = "/dev/vdisk/";
	const char *slash;
	size_t n;
	int r;

	if (!strncmp(text, dir, sizeof(dir) - 1))
		text += sizeof(dir) - 1;
	else if (text[0] == '/')
		return vol_fail(NULL, -EINVAL, "\"%s\" is a path; wanted POOL, POOL/VOLUME or /dev/vdisk/POOL/VOLUME", text);
	slash = strchr(text, '/');
	n = slash ? (size_t)(slash - text) : strlen(text);
	r = check_name("pool", text, n, POOL_EXTRA);
	if (r)
		return r;
	if (slash) {
		r = check_name("volume", slash + 1, strlen(slash + 1), VOLUME_EXTRA);
		if (r)
			return r;
	}
	memcpy(pool, text, n);
	pool[n] = 0;
	strcpy(volume, slash ? slash + 1 : "");
	return 0;
}

/* ---- sizes ------------------------------------------------------------- */

static int unit_shift(char c)
{
	static const char letters[] = "bkmgtpe";
	const char *p = c ? strchr(letters, tolower((unsigned char)c)) : NULL;

	if (tolower((unsigned char)c) == 's')
		return 9;
	return p ? (int)(p - letters) * 10 : -1;
}

int vol_parse_size(const char *text, uint64_t *bytes, char *sign)
{
	const char *p = text;
	unsigned __int128 whole = 0, fraction = 0, scale = 1, total;
	int shift = 20;
	char s = 0;

	if (*p == '+' || *p == '-') {
		if (!sign)
			return vol_fail(NULL, -EINVAL, "size \"%s\": no sign is possible here", text);
		s = *p++;
	}
	if (!isdigit((unsigned char)*p))
		return vol_fail(NULL, -EINVAL, "size \"%s\" is not a number with a unit, such as 10g, 512m or 1.5t", text);
	for (; isdigit((unsigned char)*p); p++) {
		whole = whole * 10 + (unsigned)(*p - '0');
		if (whole >> 64)
			return vol_fail(NULL, -ERANGE, "size \"%s\" is too large; the limit is 8 EiB", text);
	}
	if (*p == '.') {
		for (p++; isdigit((unsigned char)*p); p++) {
			if (scale < 1000000000000ull) {
				scale *= 10;
				fraction = fraction * 10 + (unsigned)(*p - '0');
			}
		}
	}
	if (*p) {
		shift = unit_shift(*p);
		if (shift < 0 || (p[1] && strcasecmp(p + 1, "ib") && strcasecmp(p + 1, "b")))
			return vol_fail(NULL, -EINVAL, "size \"%s\": the unit \"%s\" is none of b s k m g t p e", text, p);
	}
	total = (whole << shift) + ((fraction << shift) + scale - 1) / scale;
	if (total > (unsigned __int128)1 << 63)
		return vol_fail(NULL, -ERANGE, "size \"%s\" is too large; the limit is 8 EiB", text);
	*bytes = (uint64_t)total;
	if (sign)
		*sign = s;
	return 0;
}

bool vol_units_valid(char unit)
{
	return unit && strchr("hHrRbBsSkKmMgGtTpPeE", unit);
}

void vol_format_size(uint64_t bytes, char unit, bool suffix, char *buf, size_t size)
{
	static const char letters[] = "bkmgtpe";
	bool human = strchr("hHrR", unit) != NULL;
	bool si = isupper((unsigned char)unit) && unit != 'B' && unit != 'S';
	const char *mark = "";
	double value = (double)bytes, step = si ? 1000.0 : 1024.0;
	unsigned i = 0;

	if (unit == 's' || unit == 'S') {
		snprintf(buf, size, "%llu%s", (unsigned long long)(bytes / 512), suffix ? "s" : "");
		return;
	}
	if (human) {
		while (value >= step && i < sizeof(letters) - 2) {
			value /= step;
			i++;
		}
		if (tolower((unsigned char)unit) == 'r' && i) {
			char digits[32];
			snprintf(digits, sizeof(digits), "%.2f", value);
			if (strtod(digits, NULL) > value)
				mark = "<";
		}
	} else {
		for (i = 0; letters[i] != tolower((unsigned char)unit); i++)
			value /= step;
	}
	char tail[2] = { si ? (char)toupper((unsigned char)letters[i]) : letters[i], 0 };
	if (i == 0)
		snprintf(buf, size, "%llu%s", (unsigned long long)bytes, suffix && (!human || bytes) ? (si ? "B" : "b") : "");
	else
		snprintf(buf, size, "%s%.2f%s", mark, value, suffix ? tail : "");
}

/* ---- UUIDs ------------------------------------------------------------- */

void vol_uuid_text(const uint8_t u[16], char text[VOL_UUID_TEXT])
{
	snprintf(text, VOL_UUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
		 u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int vol_uuid_parse(const char *text, uint8_t uuid[16])
{
	uint8_t out[16];

	for (unsigned i = 0; i < 16; i++) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text == '-')
			text++;
		int hi = hex(text[0]), lo = hi < 0 ? -1 : hex(text[1]);
		if (lo < 0)
			return -EINVAL;
		out[i] = (uint8_t)(hi << 4 | lo);
		text += 2;
	}
	if (*text)
		return -EINVAL;
	memcpy(uuid, out, 16);
	return 0;
}

void vol_uuid_new(uint8_t uuid[16])
{
	size_t got = 0;

	while (got < 16) {
		ssize_t n = getrandom(uuid + got, 16 - got, 0);
		if (n > 0)
			got += (size_t)n;
	}
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}
