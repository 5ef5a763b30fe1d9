// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The userspace half of the engine's portability layer (port.h): which CPU we
 * are on, and CRC32C.
 *
 * ISA-L's crc32_iscsi has the convention that port.h asks for: the caller gives
 * the initial value and gets the register as it is, with no inversion at either
 * end, so results chain.  It picks SSE4.2, AVX or AVX-512 at run time, and its
 * length is an int.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <isa-l/crc.h>
#include <sched.h>

#include "port.h"

unsigned vd_port_cpu(void)
{
	int cpu = sched_getcpu();

	return cpu < 0 ? 0 : (unsigned)cpu;
}

uint32_t vd_port_crc32c(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	while (len) {
		size_t n = vd_min(len, (size_t)1 << 30);

		crc = crc32_iscsi((unsigned char *)p, (int)n, crc);
		p += n;
		len -= n;
	}
	return crc;
}
