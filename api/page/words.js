// How numbers and spans of time are said.
export function number(n) {
  if (n === undefined) return "–";
  if (n === 0) return "0";
  if (n < 9.95) return n.toFixed(1);
  if (n < 9995) return Math.round(n).toString();
  return `${(n / 1000).toFixed(n < 99950 ? 1 : 0)}k`;
}

export function span(s) {
  if (s < 60) return `${Math.max(0, Math.round(s))} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}
