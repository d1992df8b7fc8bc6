/** Linear models of what was measured. */

/** Least squares of relative errors, with nothing below zero: a coefficient that would be is left out. */
export function fit(measured: readonly { readonly row: readonly number[]; readonly y: number }[]): readonly number[] {
  const rows = measured.map(({ row, y }) => ({ row: row.map((value) => value / y), y: 1 }));
  const columns = rows[0]?.row.length ?? 0;
  const used = Array.from({ length: columns }, (_, i) => i);
  for (;;) {
    const found = solve(used.map((i) => used.map((j) => dot(rows, (row) => (row.row[i] ?? 0) * (row.row[j] ?? 0)))), used.map((i) => dot(rows, (row) => (row.row[i] ?? 0) * row.y)));
    const worst = found.reduce((least, value, i) => (value < (found[least] ?? 0) ? i : least), 0);
    if ((found[worst] ?? 0) >= 0 || used.length === 1) return Array.from({ length: columns }, (_, i) => Math.max(0, found[used.indexOf(i)] ?? 0));
    used.splice(worst, 1);
  }
}

function dot<T>(rows: readonly T[], of: (row: T) => number): number {
  return rows.reduce((sum, row) => sum + of(row), 0);
}

/** Gauss with pivots. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): readonly number[] {
  const a = matrix.map((row, i) => [...row, right[i] ?? 0]);
  const n = a.length;
  for (let c = 0; c < n; c++) {
    const pivot = a.reduce((best, row, r) => (r >= c && Math.abs(row[c] ?? 0) > Math.abs(a[best]?.[c] ?? 0) ? r : best), c);
    [a[c], a[pivot]] = [a[pivot] as number[], a[c] as number[]];
    for (let r = 0; r < n; r++) {
      if (r === c) continue;
      const factor = (a[r]?.[c] ?? 0) / (a[c]?.[c] || 1);
      for (let k = c; k <= n; k++) (a[r] as number[])[k] = (a[r]?.[k] ?? 0) - factor * (a[c]?.[k] ?? 0);
    }
  }
  return a.map((row, i) => (row[n] ?? 0) / (row[i] || 1));
}
