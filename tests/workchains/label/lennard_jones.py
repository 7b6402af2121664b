"""A user's own program: Lennard-Jones with a cutoff and minimum images, by plain Python."""

import itertools
import json
import sys
from pathlib import Path

SIGMA, EPSILON, CUTOFF = 2.2, 0.2, 4.0


def main():
    lines = Path(sys.argv[1]).read_text().split('\n')
    edge, count = float(lines[0]), int(lines[1])
    positions = [[float(x) for x in line.split()[1:]] for line in lines[2 : 2 + count]]
    if any(line.split()[0] == 'Au' for line in lines[2 : 2 + count]):
        sys.exit('this program does not know gold')
    energy, forces = 0.0, [[0.0, 0.0, 0.0] for _ in positions]
    shift = 4 * EPSILON * ((SIGMA / CUTOFF) ** 12 - (SIGMA / CUTOFF) ** 6)
    for i, j in itertools.combinations(range(count), 2):
        d = [b - a for a, b in zip(positions[i], positions[j], strict=True)]
        d = [x - edge * round(x / edge) for x in d]
        r2 = sum(x * x for x in d)
        if r2 > CUTOFF**2:
            continue
        s6 = (SIGMA**2 / r2) ** 3
        energy += 4 * EPSILON * (s6 * s6 - s6) - shift
        pull = 24 * EPSILON * (2 * s6 * s6 - s6) / r2
        for k in range(3):
            forces[i][k] -= pull * d[k]
            forces[j][k] += pull * d[k]
    print('some advice from a library', file=sys.stderr)
    Path('label.json').write_text(json.dumps({'energy': energy, 'forces': forces}))


if __name__ == '__main__':
    main()
