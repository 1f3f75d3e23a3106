// The console's icons, as strokes on a grid of 24.
//
// Rule: decoration; what an icon means is always said in text as well.
import {html} from '../lib.js';

const PATHS = {
  overview: 'M3 12h4l3-8 4 16 3-8h4',
  models: 'M12 3l9 5-9 5-9-5zM3 12.500l9 5 9-5M3 17l9 5 9-5',
  playground: 'M4 5h16v11H9l-5 4z',
  keys: 'M14.500 9.500a5 5 0 1 0-4.200 4.900L12 16h2.500v2.500H17V21h4v-3.500l-6.800-6.300zM8.500 8.500h.01',
  usage: 'M4 20V10M10 20V4M16 20v-7M21 20H3',
  requests: 'M8 6h13M8 12h13M8 18h13M3.500 6h.01M3.500 12h.01M3.500 18h.01',
  logout: 'M9 4H5v16h4M15 8l4 4-4 4M19 12H9',
  light: 'M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8M12 2v2M12 20v2M4.900 4.900l1.400 1.400M17.700 17.700l1.400 1.400M2 12h2M20 12h2M4.900 19.100l1.400-1.400M17.700 6.300l1.400-1.400',
  dark: 'M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500z',
  system: 'M4 5h16v11H4zM9 20h6M12 16v4',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  check: 'M5 12.500l4.500 4.500L19 7.500',
  close: 'M6 6l12 12M18 6L6 18',
  plus: 'M12 5v14M5 12h14',
  more: 'M12 6h.01M12 12h.01M12 18h.01',
  refresh: 'M20 11a8 8 0 1 0-.7 4.500M20 5v6h-6',
  wake: 'M13 2L5 13h6l-1 9 8-11h-6z',
  send: 'M12 20V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  edit: 'M4 20h4L19 9l-4-4L4 16zM13.500 6.500l4 4',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13',
  download: 'M12 4v11M7 11l5 5 5-5M4 20h16',
  settings: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4',
  left: 'M14 6l-6 6 6 6',
  down: 'M6 9l6 6 6-6',
  warning: 'M12 4l9.500 16.500h-19zM12 10v4.500M12 17.500h.01',
};

// `name` of the table above; `size` in pixels.
export function Icon({name, size = 18}) {
  return html`<svg class="icon" width=${size} height=${size} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} /></svg>`;
}
