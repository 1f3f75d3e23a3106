// A table that scrolls in a box of its own where it is too wide, and can be sorted.
//
// Rule: rows are values; a column says how one is drawn and, if it can be sorted, by what.
import {html, useState} from '../lib.js';

// `columns`: [{id, label, cell: (row) => text or html, by: (row) => value to sort by, numeric, fits}]
// (`numeric`: aligned to the right; `fits`: only as wide as it must). `rows`, `name: (row) => key`, `caption`
// (told to screen readers), `empty`: shown instead of no rows, `foot`: [text or html for each column],
// `sorted`: {id, down} at first.
export function Table({columns, rows, name, caption, empty, foot, sorted = null}) {
  const [order, setOrder] = useState(sorted);
  if (!rows.length && empty) return empty;
  const column = order && columns.find(({id}) => id === order.id);
  const ordered = column?.by ? [...rows].sort(comparing(column.by, order.down)) : rows;
  const turn = ({id, numeric}) => setOrder({id, down: order?.id === id ? !order.down : Boolean(numeric)});
  const kind = (one) => [one.numeric && 'numeric', one.fits && 'fits'].filter(Boolean).join(' ') || null;
  return html`<div class="table-box" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="unseen">${caption}</caption>
      <thead><tr>${columns.map((one) => html`<th key=${one.id} scope="col" class=${kind(one)}
        aria-sort=${order?.id === one.id ? (order.down ? 'descending' : 'ascending') : null}>
        ${one.by ? html`<button type="button" class="sort" onClick=${() => turn(one)}>${one.label}</button>` : one.label}
      </th>`)}</tr></thead>
      <tbody>${ordered.map((row) => html`<tr key=${name(row)}>
        ${columns.map((one) => html`<td key=${one.id} class=${kind(one)}>${one.cell(row)}</td>`)}</tr>`)}</tbody>
      ${foot && html`<tfoot><tr>${foot.map((cell, at) => html`<td key=${at} class=${kind(columns[at])}>${cell}</td>`)}</tr></tfoot>`}
    </table>
  </div>`;
}

function comparing(by, down) {
  const sign = down ? -1 : 1;
  return (a, b) => {
    const [left, right] = [by(a) ?? null, by(b) ?? null];
    if (left === right) return 0;
    if (left === null || right === null) return left === null ? 1 : -1; // what is unknown goes last
    const larger = typeof left === 'string' ? left.localeCompare(right) > 0 : left > right;
    return larger ? sign : -sign;
  };
}
