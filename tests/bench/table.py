#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""table.py SAMPLES...   lines "ROW TARGET NS" as a table: medians, spread, ratios to linear."""
import collections
import json
import statistics
import sys

WANTED = {'read': 0.90, 'write': 0.90, 'first-1': 0.60, 'first-32': 0.60, 'first-dense': 0.60,
          'seq-64k': 0.80, 'snap': 0.50, 'flush': 0.15}


def read(path):
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    with open(path) as samples:
        for line in samples:
            row, target, ns = line.split()
            rows[row][target].append(int(ns))
    return rows


def main():
    for path in sys.argv[1:]:
        rows = read(path)
        figures = {}
        targets = list(dict.fromkeys(t for by in rows.values() for t in by))
        print('| ns a bio | ' + ' | '.join(targets + ['vd/linear', 'target']) + ' |')
        print('|---' * (len(targets) + 3) + '|')
        for row, by in rows.items():
            base = statistics.median(by['linear'])
            cells = []
            for t in targets:
                m = statistics.median(by[t])
                figures.setdefault(row, {})[t] = {'ns': m, 'min': min(by[t]), 'max': max(by[t]), 'ratio': round(base / m, 3)}
                cells.append(f'{m:.0f} ±{(max(by[t]) - min(by[t])) / 2 / m * 100:.1f}% ({base / m:.2f})')
            ratio = f'{figures[row]["vd"]["ratio"]:.2f}' if 'vd' in by else '-'
            print(f'| {row} | ' + ' | '.join(cells + [ratio, f'{WANTED[row]:.2f}']) + ' |')
        with open(path.rsplit('.', 1)[0] + '.json', 'w') as out:
            json.dump(figures, out, indent=1)


main()
