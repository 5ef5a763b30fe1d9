// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include <fcntl.h>
#include <getopt.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void cli_start(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "runs", required_argument, NULL, 'r' },
		{ "ops", required_argument, NULL, 'o' }, { "crashes", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 't' }, { "verbose", no_argument, NULL, 'v' }, { 0 },
	};
	const char *scale = getenv("VD_TEST_SCALE"), *soak = getenv("VD_SOAK_SECONDS");
	int c, fd;

	if (soak && *soak)
		cli->seconds = strtoull(soak, NULL, 0);
	else if (scale && *scale)
		cli->seconds = vd_max(cli->seconds * strtoull(scale, NULL, 0) / 100, 1);
	if (scale && *scale)
		cli->least = cli->least * strtoull(scale, NULL, 0) / 100;
	while ((c = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 's':
			cli->seed = n;
			cli->seed_given = true;
			break;
		case 'r':
			cli->runs = n;
			cli->seconds = 0;
			break;
		case 'o':
			cli->ops = n;
			break;
		case 'c':
			cli->crashes = n;
			cli->seconds = 0;
			break;
		case 't':
			cli->seconds = n;
			cli->least = 0;
			break;
		case 'v':
			cli->verbose = true;
			break;
		default:
			fprintf(stderr, "usage: %s [--seed N] [--runs N] [--ops N] [--crashes N] [--seconds N] [--verbose]\n", argv[0]);
			exit(2);
		}
	}
	if (!cli->seed_given) {
		fd = open("/dev/urandom", O_RDONLY);
		if (fd < 0 || read(fd, &cli->seed, 6) != 6)
			cli->seed = (uint64_t)time(NULL);
		if (fd >= 0)
			close(fd);
		cli->seed &= 0xffffffffffffull;
	}
	printf("# seed %#llx\n", (unsigned long long)cli->seed);
	fflush(stdout);
	cli->began = seconds_now();
}

double cli_elapsed(const struct cli *cli)
{
	return seconds_now() - cli->began;
}

bool cli_more(struct cli *cli, uint64_t done)
{
	if (cli->runs && cli->run >= cli->runs)
		return false;
	if (cli->seconds && done >= cli->least && cli_elapsed(cli) >= (double)cli->seconds)
		return false;
	cli->run++;
	return true;
}

uint64_t cli_run_seed(struct cli *cli)
{
	struct rng r = rng_seeded(cli->seed + cli->run);

	return cli->run == 1 ? cli->seed : rng_next(&r) & 0xffffffffffffull;
}
