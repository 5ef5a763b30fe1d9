#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""table.py SAMPLES...              what kernel.sh measured, as tables; and as JSON, beside them
   table.py --plot SVG SAMPLES      a plot of one file of bios

A line of samples is "ROW TARGET FIGURE".  Figures are medians; ± is half of what is between
the smallest and the largest.
"""
import collections
import json
import os
import statistics
import sys

# Of dm-linear's speed; and of what is measured beside.
BIOS = {'read': 0.90, 'write': 0.90, 'first-1': 0.60, 'first-32': 0.60, 'first-dense': 0.60,
        'seq-64k': 0.80, 'snap': 0.50, 'flush': 0.15}
OTHERS = {'create': 1 / 5, 'snapshot': 1 / 5, 'snapshot-node': 1 / 5, 'metadata': 1 / 20,
          'snapshot-1': 1, 'snapshot-10000': 1, 'link': 1, 'unlink': 1}


def read(path):
    """row -> target -> (median, half the spread, number of samples)"""
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    with open(path, encoding='ascii') as samples:
        for line in samples:
            row, target, figure = line.split()
            rows[row][target].append(float(figure))
    return {row: {t: (statistics.median(v), (max(v) - min(v)) / 2, len(v)) for t, v in by.items()} for row, by in rows.items()}


def print_table(head, lines):
    for line in [head, ['---'] * len(head)] + lines:
        print('| ' + ' | '.join(line) + ' |')
    print()


def spread(figure):
    return f'{figure[0]:.0f} ±{figure[1] / figure[0] * 100:.0f}%'


def bios(rows):
    targets = list(next(iter(rows.values())))
    lines = []
    for row, by in rows.items():
        base = by['linear'][0]
        lines.append([row, spread(by['linear'])] + [f'{spread(by[t])}, **{base / by[t][0]:.2f}**' for t in targets[1:]] +
                     [f'{BIOS[row]:.2f}'])
    print_table(['ns a bio, ratio to linear'] + targets + ['target'], lines)


def cpus(rows):
    lines = []
    for row in dict.fromkeys(r.rsplit('-', 1)[0] for r in rows):
        one, four = rows[f'{row}-1'], rows[f'{row}-4']
        scale = {t: four[t][0] / one[t][0] for t in four}
        lines += [[row, t, spread(one[t]), spread(four[t]), f'{scale[t]:.2f}', f'{scale[t] / scale["linear"]:.2f}',
                   f'{four[t][0] / four["linear"][0]:.2f}'] for t in four]
    print_table(['row', 'target', '1 job, a second', '4 jobs', 'scales', 'of linear\'s', '4 jobs, of linear'], lines)


def others(rows):
    lines = []
    for row, by in rows.items():
        peer = next((t for t in by if t != 'vd'), None)
        wanted = OTHERS.get(row)
        lines.append([row, spread(by['vd']) if 'vd' in by else '-', f'{peer} {spread(by[peer])}' if peer else '-',
                      f'{by["vd"][0] / by[peer][0]:.2f}' if peer and 'vd' in by else '-', f'≤ {wanted:.2f}' if wanted else ''])
    print_table(['row', 'vd', 'beside', 'ratio', 'target'], lines)


COLOURS = {'thin': '#b8b8b8', 'thinskip': '#8c8c8c', 'snapshot': '#d8b46a', 'vd': '#2b6cb0'}
NAMES = {'thin': 'dm-thin', 'thinskip': 'dm-thin, no zeroing', 'snapshot': 'dm-snapshot', 'vd': 'dm-vd'}


def plot(rows, path):
    """Bars of the ratios to dm-linear; a stroke is the target."""
    left, unit, bar, gap = 110, 520, 11, 16
    group = bar * len(COLOURS) + gap
    height = 50 + group * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + unit + 60}" height="{height + 24}" '
           'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>']
    for i, (t, colour) in enumerate(COLOURS.items()):
        out.append(f'<rect x="{left + i * 130}" y="10" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{left + 16 + i * 130}" y="20">{NAMES[t]}</text>')
    for tenth in range(0, 11, 2):
        x = left + unit * tenth / 10
        out.append(f'<line x1="{x}" x2="{x}" y1="36" y2="{height}" stroke="#ddd"/>'
                   f'<text x="{x}" y="{height + 16}" text-anchor="middle">{tenth / 10:.1f}</text>')
    for i, (row, by) in enumerate(rows.items()):
        y = 42 + i * group
        out.append(f'<text x="{left - 8}" y="{y + group / 2 - 3}" text-anchor="end">{row}</text>')
        for j, (t, colour) in enumerate(COLOURS.items()):
            if t in by:
                ratio = by['linear'][0] / by[t][0]
                out.append(f'<rect x="{left}" y="{y + j * bar}" width="{ratio * unit:.1f}" height="{bar - 1}" fill="{colour}"/>'
                           f'<text x="{left + ratio * unit + 4:.1f}" y="{y + j * bar + 9}" font-size="10">{ratio:.2f}</text>')
        x = left + BIOS[row] * unit
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + group - gap + 3}" stroke="#c00" stroke-width="2"/>')
    with open(path, 'w', encoding='ascii') as svg:
        svg.write('\n'.join(out + ['</svg>', '']))


def main():
    if sys.argv[1] == '--plot':
        plot(read(sys.argv[3]), sys.argv[2])
        return
    for path in sys.argv[1:]:
        rows = read(path)
        part = os.path.basename(path).removeprefix('kernel-').removesuffix('.tsv')
        print(f'{part}, {max(n for by in rows.values() for _, _, n in by.values())} of each\n')
        {'cpus-2': cpus, 'cpus-4': cpus, 'commands': others, 'link': others, 'pools': others, 'links-vm': others, 'links-nvme-tcp': others}.get(part, bios)(rows)
        with open(path.removesuffix('.tsv') + '.json', 'w', encoding='ascii') as out:
            json.dump({row: {t: {'median': m, 'half_spread': s, 'n': n} for t, (m, s, n) in by.items()} for row, by in rows.items()},
                      out, indent=1)


main()
