// What stands in place of usage and requests where the gateway keeps no ledger.
import {html} from '../lib.js';
import {Card, Empty} from './basic.js';

export function NoLedger() {
  return html`<${Card}><${Empty} icon="usage" title="No ledger">This gateway keeps no record of requests. Set <code>store.url</code> in
    its configuration to see usage and requests here.<//><//>`;
}
