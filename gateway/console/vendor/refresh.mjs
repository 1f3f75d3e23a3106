// Copies the console's libraries from the node_modules beside this file to the folder that is named.
//
// Rule: files stay as they were published, but for the import of Preact, which a browser finds only by its
// address, and the names of source maps, which are not served. The first line says which version it is.
import {copyFileSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

const FILES = [
  ['preact', 'dist/preact.module.js', 'preact.js'],
  ['preact', 'hooks/dist/hooks.module.js', 'hooks.js'],
  ['htm', 'dist/htm.module.js', 'htm.js'],
  ['uplot', 'dist/uPlot.iife.min.js', 'uplot.js'],
  ['uplot', 'dist/uPlot.min.css', 'uplot.css'],
];

const target = process.argv[2];
const modules = join(import.meta.dirname, 'node_modules');
mkdirSync(target, {recursive: true});
for (const [name, from, to] of FILES) {
  const {version, license} = JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8'));
  const text = readFileSync(join(modules, name, from), 'utf8')
    .replaceAll('from"preact"', 'from"./preact.js"')
    .replace(/\n\/\/# sourceMappingURL=.*\n?$/, '\n');
  writeFileSync(join(target, to), `/* ${name} ${version}, ${license} */\n${text}`);
  copyFileSync(join(modules, name, 'LICENSE'), join(target, `${name}.LICENSE.txt`));
}
