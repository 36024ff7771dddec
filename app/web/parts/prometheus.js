// The text format of Prometheus, as far as the service uses it.

/** The samples of a page: `{name, labels, value}` each. */
export function parseMetrics(text) {
  return text.split("\n").flatMap((line) => {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) return [];
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    return [{ name: match[1], labels, value: Number(match[3]) }];
  });
}

/** The sum of the samples of this name, whose labels pass. */
export const total = (samples, name, passes = () => true) =>
  samples.reduce((sum, sample) => (sample.name === name && passes(sample.labels) ? sum + sample.value : sum), 0);

/** The counts of a histogram by upper bound, summed over its series. */
export function buckets(samples, name, passes = () => true) {
  const counts = new Map();
  for (const sample of samples) {
    if (sample.name !== `${name}_bucket` || !passes(sample.labels)) continue;
    const bound = sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + sample.value);
  }
  return counts;
}

/** A quantile of what was counted between two pages, interpolated in its bucket; null if that is nothing. */
export function quantile(q, before, after) {
  const grown = [...after].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]).sort((a, b) => a[0] - b[0]);
  const all = grown.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [lower, below] = [0, 0];
  for (const [bound, count] of grown) {
    if (count >= q * all) return bound === Infinity ? lower : lower + ((bound - lower) * (q * all - below)) / (count - below || 1);
    [lower, below] = [bound, count];
  }
  return null;
}
