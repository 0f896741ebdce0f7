// SPDX-License-Identifier: BSD-3-Clause
// The bridge's HTTP side in a browser: fetch from pages of other origins, and the page that the bridge itself serves.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Bridge, startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { Browser } from './pages.mjs';

const browser = await Browser.start();
after(() => browser.stop());
const { broker, bridge, stop } = await startBoth();
after(stop);

/** fetch in the page: {status, json}, or {error} when the browser does not let the page see the answer. */
const ask = (page, url, method = 'GET', body = undefined) => page.evaluate(async ([where, how, what]) => {
    try {
        const response = await fetch(where, { method: how, headers: { 'Content-Type': 'application/json', Authorization: 'Bearer none' },
            ...(what === undefined ? {} : { body: JSON.stringify(what) }) });
        const text = await response.text();
        return { status: response.status, json: text ? JSON.parse(text) : undefined };
    } catch (error) {
        return { error: String(error) };
    }
}, [url, method, body]);

test('fetch from a page of another origin: every method, with a preflight', async (t) => {
    const picky = await Bridge.start(broker, { bridge: { allowedOrigins: [browser.origin] } });
    t.after(() => picky.stop());
    const [good, evil] = [await browser.page(), await browser.page('/', browser.otherOrigin)];
    const collection = unique('todos');
    const url = `http://127.0.0.1:${picky.port}/sync/${collection}`;
    const web = await picky.client();
    await web.subscribe(collection);

    const posted = await ask(good, url, 'POST', { recordId: 'milk', data: { text: 'Milk €' }, timestamp: new Date().toISOString() });
    assert.ok(posted.status >= 200 && posted.status < 300, JSON.stringify(posted));
    assert.deepEqual((await web.take('insert')).data, { text: 'Milk €' });
    const patched = await ask(good, `${url}/milk`, 'PATCH', { delta: { done: true }, baseVersion: 1, timestamp: new Date().toISOString() });
    assert.ok(patched.status >= 200 && patched.status < 300, JSON.stringify(patched));
    assert.deepEqual((await web.take('update')).data, { done: true });
    const got = await ask(good, url);
    assert.deepEqual(got.json.records.map((r) => [r.recordId, r.data, r.version]), [['milk', { text: 'Milk €', done: true }, 2]]);

    // the browser keeps other pages from reading, and from writing what needs a preflight
    assert.match((await ask(evil, url)).error, /Failed to fetch/);
    assert.match((await ask(evil, `${url}/milk`, 'DELETE')).error, /Failed to fetch/);
    const deleted = await ask(good, `${url}/milk`, 'DELETE');
    assert.ok(deleted.status >= 200 && deleted.status < 300, JSON.stringify(deleted));
    assert.equal((await web.take('delete')).metadata.version, 3);
    await Promise.all([good.context().close(), evil.context().close()]);
});

test('a failure is one that the page can read', async () => {
    const page = await browser.page();
    const failed = await ask(page, `http://127.0.0.1:${bridge.port}/sync/todos`, 'POST', { recordId: 'a/b', data: {} });
    assert.deepEqual([failed.status, failed.json.code], [400, 'INVALID_MESSAGE']);
    await page.context().close();
});

test('the page at /: two of them and a device share the todos', async () => {
    const device = await broker.client();
    await device.subscribe('sync/todos/evt/+');
    const [ana, bo] = await Promise.all([browser.page('/', `http://127.0.0.1:${bridge.port}`), browser.page('/', `http://127.0.0.1:${bridge.port}`)]);
    for (const page of [ana, bo]) {
        await page.getByText('Live', { exact: true }).waitFor();
    }
    await ana.getByLabel('New todo').fill('Buy milk');
    await ana.getByRole('button', { name: 'Add' }).click();
    assert.equal((await device.event('insert')).data.text, 'Buy milk');
    await bo.getByRole('checkbox', { name: 'Buy milk' }).check();
    const { recordId, data } = await device.event('update');
    assert.equal(data.done, true);
    await ana.locator('li.done', { hasText: 'Buy milk' }).waitFor();
    await device.short('todos', recordId, 'update', { text: 'Buy <b>bread</b>' });
    for (const page of [ana, bo]) {
        await page.getByText('Buy <b>bread</b>').waitFor(); // shown as it is, not as HTML
        await page.reload();
        await page.getByText('Buy <b>bread</b>').waitFor();
    }
    await bo.getByRole('button', { name: /Delete/ }).click();
    await device.event('delete');
    await ana.getByRole('checkbox').waitFor({ state: 'detached' });
    for (const page of [ana, bo]) {
        assert.deepEqual(page.complaints, []);
        await page.context().close();
    }
});
