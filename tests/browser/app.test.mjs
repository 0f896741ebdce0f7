// SPDX-License-Identifier: BSD-3-Clause
// The example app that the bridge serves at /, in a real browser, beside another page and an MQTT device.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { Bridge, startBoth, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { poll } from '../lib/wait.mjs';
import { Browser } from './pages.mjs';

const browser = await Browser.start();
after(() => browser.stop());

async function open(bridge) {
    const page = await browser.page('/', `http://127.0.0.1:${bridge.port}`);
    page.on('console', (message) => message.type() === 'error' && page.complaints.push(message.text()));
    return page;
}
const live = (page) => page.locator('#state.live').waitFor();
const rows = (page) => page.locator('#todos li').evaluateAll((all) => all.map((li) => `${li.querySelector('input').checked ? 'x' : '-'} ${li.querySelector('span').textContent}`));
const shows = (page, ...expected) => poll(async () => JSON.stringify((await rows(page)).sort()) === JSON.stringify(expected.sort()), `the page to show ${expected}`);

test('adds, ticks off, deletes, and shows what others do', async (t) => {
    const { broker, bridge, stop } = await startBoth();
    t.after(stop);
    const [a, b, device] = [await open(bridge), await open(bridge), await broker.client()];
    await Promise.all([live(a), live(b)]);
    assert.equal(await a.locator('#none').isVisible(), true);
    await a.getByLabel('New todo').fill('Milk <b>');
    await a.getByRole('button', { name: 'Add' }).click();
    await Promise.all([shows(a, '- Milk <b>'), shows(b, '- Milk <b>')]);
    assert.equal(await a.locator('#none').isVisible(), false);
    await b.getByRole('checkbox', { name: 'Milk <b>' }).click();
    await Promise.all([shows(a, 'x Milk <b>'), shows(b, 'x Milk <b>')]);
    await device.short('todos', 'bread', 'insert', { text: 'Bread' });
    await device.short('todos', 'odd', 'insert', { no: 'text' });
    await device.short('todos', 'odder', 'insert', { text: { toString: 1, valueOf: 1 } });
    await Promise.all([a, b].map((page) => shows(page, 'x Milk <b>', '- Bread', '- odd', '- odder')));
    await device.short('todos', 'odder', 'delete');
    await a.getByRole('button', { name: 'Delete Milk <b>' }).click();
    await Promise.all([a, b].map((page) => shows(page, '- Bread', '- odd')));
    await bridge.terminate();
    await a.getByText('Reconnecting').waitFor();
    await device.short('todos', 'odd', 'delete');
    await device.short('todos', 'bread', 'update', { done: true });
    bridge.write({});
    await bridge.start();
    await Promise.all([a, b].map((page) => shows(page, 'x Bread')));
    assert.deepEqual([a, b].flatMap((page) => page.complaints).filter((text) => !/WebSocket connection/.test(text)), []);
});

test('with a token that is pasted in', async (t) => {
    const secret = 'a secret of thirty-two characters';
    const config = { collections: { todos: { read: ['*'], write: ['role:staff'] } }, trustedUsers: ['bridge'] };
    const broker = await Broker.start({ config });
    t.after(() => broker.stop());
    const keyFile = path.join(broker.directory, 'key');
    fs.writeFileSync(keyFile, secret);
    const bridge = await Bridge.start(broker, { ...config, auth: { jwt: { algorithm: 'HS256', keyFile } }, bridge: { username: 'bridge' } });
    t.after(() => bridge.stop());
    const page = await open(bridge);
    const use = async (claims) => {
        await page.getByLabel('A JWT').fill(token(secret, claims));
        await page.getByRole('button', { name: 'Use' }).click();
    };
    await page.getByText('asks for a token').waitFor();
    await page.getByText('Token', { exact: true }).click();
    await use({ userId: 'bo' });
    await live(page);
    await page.getByLabel('New todo').fill('Milk');
    await page.getByRole('button', { name: 'Add' }).click();
    await page.getByText('may not write').waitFor();
    await shows(page);
    await use({ userId: 'ana', roles: ['staff'] });
    await live(page);
    await poll(async () => {
        await page.getByLabel('New todo').fill('Milk');
        await page.getByRole('button', { name: 'Add' }).click();
        return (await rows(page)).length > 0;
    }, 'the todo to be added');
    assert.equal((await rows(page))[0], '- Milk');
});
