// The pages: one row each, in the order of the navigation.
//
// Rule: a page is a module whose default export is drawn with {route, session}; it is loaded when one first goes there.
export const PAGES = [
  {name: 'overview', title: 'Overview', load: () => import('./pages/overview.js')},
  {name: 'models', title: 'Models', load: () => import('./pages/models.js')},
  {name: 'playground', title: 'Playground', load: () => import('./pages/playground.js')},
  {name: 'keys', title: 'Keys', load: () => import('./pages/keys.js')},
  {name: 'usage', title: 'Usage', load: () => import('./pages/usage.js')},
  {name: 'requests', title: 'Requests', load: () => import('./pages/requests.js')},
];
