// SPDX-License-Identifier: BSD-3-Clause
// The bridge as pages in a real browser see it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { Bridge, startBoth, token } from '../lib/bridge.mjs';
import { repository } from '../lib/env.mjs';
import { unique } from '../lib/client.mjs';
import { Broker } from '../lib/broker.mjs';
import { Browser } from './pages.mjs';

const SECRET = 'a secret of thirty-two characters';
const browser = await Browser.start();
after(() => browser.stop());
const { broker, bridge, stop } = await startBoth({}, { broker: { conf: [] } });
after(stop);

/** A broker and a bridge that want tokens. */
async function withTokens(t, more = {}) {
    const own = await Broker.start({ config: { trustedUsers: ['bridge'] }, conf: [], listener: [] });
    t.after(() => own.stop());
    const keyFile = path.join(own.directory, 'key');
    fs.writeFileSync(keyFile, SECRET);
    const guarded = await Bridge.start(own, { auth: { jwt: { algorithm: 'HS256', keyFile } }, trustedUsers: ['bridge'],
        bridge: { username: 'bridge', ...more } });
    t.after(() => guarded.stop());
    return { own, guarded };
}

test('a write in one page is seen by another page and by an MQTT client', async (t) => {
    const { own, guarded } = await withTokens(t);
    const collection = unique('todos');
    const [ana, bo] = [await browser.page(), await browser.page()];
    const device = await own.client();
    await device.subscribe(`sync/${collection}/evt/+`);
    const url = guarded.url();

    // the token in the URL
    const subscribed = await bo.evaluate(async ([where, name]) => {
        window.bridge = await window.talk(where);
        window.bridge.send({ type: 'subscribe', collection: name });
        return window.bridge.take('subscribed');
    }, [`${url}?token=${token(SECRET, { userId: 'bo' })}`, collection]);
    assert.equal(subscribed.metadata.recordCount, 0);

    // the token in auth
    const ack = await ana.evaluate(async ([where, jwt, name]) => {
        window.bridge = await window.talk(where);
        window.bridge.send({ type: 'auth', token: jwt });
        await window.bridge.take('authenticated');
        window.bridge.send({ type: 'insert', collection: name, recordId: 'milk', data: { text: 'Milk €' }, metadata: { mutationId: 'm1' } });
        return window.bridge.take('ack');
    }, [url, token(SECRET, { userId: 'ana' }), collection]);
    assert.equal(ack.metadata.version, 1);

    const seen = await bo.evaluate(() => window.bridge.take('insert'));
    assert.deepEqual([seen.data, seen.metadata.userId], [{ text: 'Milk €' }, 'ana']);
    assert.deepEqual((await device.event()).data, { text: 'Milk €' });

    // and the other way round; a page that comes later gets the snapshot
    await device.short(collection, 'milk', 'update', { done: true });
    assert.deepEqual((await bo.evaluate(() => window.bridge.take('update'))).data, { done: true });
    const late = await browser.page();
    const page = await late.evaluate(async (where) => {
        const bridge = await window.talk(where);
        return bridge.take('sync');
    }, `${guarded.url(`/ws/${collection}`)}?token=${token(SECRET, { userId: 'cy' })}`);
    assert.deepEqual(page.data.records[0].data, { text: 'Milk €', done: true });

    // a bad token: told so, then closed
    const refused = await late.evaluate(async (where) => {
        const bridge = await window.talk(where);
        return { error: await bridge.take('error'), closed: await bridge.closed };
    }, `${url}?token=nonsense`);
    assert.equal(refused.error.code, 'AUTH_FAILED');
    assert.deepEqual([refused.closed.code, refused.closed.wasClean], [1008, true]);
    for (const one of [ana, bo, late]) {
        assert.deepEqual(one.complaints, []);
        await one.context().close();
    }
});

test('a big message, compressed by the browser, and back in pages', async () => {
    const page = await browser.page();
    const collection = unique('big');
    const total = await page.evaluate(async ([where, name]) => {
        const bridge = await window.talk(where);
        for (let i = 0; i < 20; i++) {
            bridge.send({ type: 'insert', collection: name, recordId: `r${i}`, data: { text: String(i).repeat(30_000) }, metadata: { mutationId: `m${i}` } });
            await bridge.take('ack');
        }
        bridge.send({ type: 'subscribe', collection: name });
        const records = [];
        for (let more = true; more;) {
            const one = await bridge.take('sync');
            records.push(...one.data.records);
            more = one.metadata.more;
        }
        return { n: records.length, right: records.every((r) => r.data.text === r.id.slice(1).repeat(30_000)), extensions: bridge.socket.extensions };
    }, [bridge.url(), collection]);
    assert.deepEqual([total.n, total.right], [20, true]);
    assert.match(total.extensions, /permessage-deflate/);
    await page.context().close();
});

test('mqtt.js in a page', async () => {
    const page = await browser.page();
    const device = await broker.client();
    const collection = unique('c');
    await page.evaluate(async (url) => {
        window.client = await window.mqtt.connectAsync(url, { protocolVersion: 5 });
        window.got = [];
        window.client.on('message', (topic, payload) => {
            window.got.push({ topic, payload });
            window.wake?.();
        });
        window.message = async (topic) => {
            for (;;) {
                const i = window.got.findIndex((m) => m.topic === topic);
                if (i >= 0) {
                    return window.got.splice(i, 1)[0].payload;
                }
                await new Promise((resolve) => {
                    window.wake = resolve;
                });
            }
        };
    }, bridge.url('/mqtt'));
    for (const qos of [0, 1, 2]) {
        const topic = unique('plant/line');
        await device.subscribe(`${topic}/up`);
        await page.evaluate(([where, q]) => window.client.subscribeAsync(`${where}/down`, { qos: q }), [topic, qos]);
        await page.evaluate(([where, q]) => window.client.publishAsync(`${where}/up`, 'up', { qos: q }), [topic, qos]);
        assert.equal((await device.other((m) => m.topic === `${topic}/up`)).text, 'up');
        await device.publish(`${topic}/down`, 'down', { qos });
        assert.equal(await page.evaluate(async (where) => (await window.message(where)).toString(), `${topic}/down`), 'down');
    }
    // 1 MB there and back
    const same = await page.evaluate(async (topic) => {
        const payload = new Uint8Array(1024 * 1024).map((_, i) => i * 7);
        await window.client.subscribeAsync(topic, { qos: 1 });
        await window.client.publishAsync(topic, payload, { qos: 1 });
        const back = await window.message(topic);
        return back.length === payload.length && back.every((byte, i) => byte === payload[i]);
    }, unique('big'));
    assert.ok(same);
    // records
    await page.evaluate((name) => window.client.subscribeAsync(`sync/${name}/evt/+`), collection);
    await device.short(collection, 'r', 'insert', { a: 1 });
    const event = await page.evaluate(async (topic) => (await window.message(topic)).toString(), `sync/${collection}/evt/r`);
    assert.equal(JSON.parse(event).metadata.version, 1);
    assert.deepEqual(page.complaints, []);
    await page.evaluate(() => window.client.endAsync());
    await page.context().close();
});

test('a page that is closed: its will', async () => {
    const page = await browser.page();
    const device = await broker.client();
    const topic = unique('will');
    await device.subscribe(topic);
    await page.evaluate(([url, where]) => window.mqtt.connectAsync(url, { will: { topic: where, payload: 'gone' } }), [bridge.url('/mqtt'), topic]);
    await page.context().close();
    assert.equal((await device.other()).text, 'gone');
});

test('pages of origins that are not allowed', async (t) => {
    const picky = await Bridge.start(broker, { bridge: { allowedOrigins: [browser.origin] } });
    t.after(() => picky.stop());
    const [good, evil] = [await browser.page(), await browser.page('/', browser.otherOrigin)];
    const opens = (page, where, subprotocol) => page.evaluate(async ([url, sub]) => {
        const one = await window.talk(url, sub);
        const open = one.socket.readyState === WebSocket.OPEN;
        one.socket.close();
        return open;
    }, [picky.url(where), subprotocol]);
    assert.deepEqual([await opens(good, '/ws'), await opens(good, '/mqtt', 'mqtt')], [true, true]);
    assert.deepEqual([await opens(evil, '/ws'), await opens(evil, '/mqtt', 'mqtt')], [false, false]);
    // the browser itself insists on the subprotocol it has asked for
    assert.deepEqual([await opens(good, '/mqtt'), await opens(good, '/ws', 'mqtt')], [false, false]);
    await Promise.all([good.context().close(), evil.context().close()]);
});

test('a stop of the bridge, as pages are told', async (t) => {
    const own = await Bridge.start(broker);
    t.after(() => own.kill());
    const page = await browser.page();
    await page.evaluate(async ([ws, mqtt]) => {
        window.both = [await window.talk(ws), await window.talk(mqtt, 'mqtt')];
    }, [own.url(), own.url('/mqtt')]);
    await own.terminate();
    const closed = await page.evaluate(() => Promise.all(window.both.map((one) => one.closed)));
    assert.deepEqual(closed.map((c) => [c.code, c.wasClean]), [[1001, true], [1001, true]]);
    await page.context().close();
});

test('the page in docs/bridge.md', async () => {
    const document = fs.readFileSync(path.join(repository, 'docs/bridge.md'), 'utf8');
    const shown = /^<!-- run by tests\/browser -->\n```html\n([^]*?)\n```$/m.exec(document)?.[1];
    assert.ok(shown, 'the document has the page');
    const script = /src="(https:[^"]*\/mqtt@5[^"]*)"/.exec(shown)?.[1];
    assert.ok(script && shown.includes('ws://127.0.0.1:8080/mqtt'));
    browser.files.set('/shown', shown.replace(script, '/mqtt.min.js').replace('ws://127.0.0.1:8080/mqtt', bridge.url('/mqtt')));
    const device = await broker.client();
    await device.subscribe('sync/todos/evt/+');
    const page = await browser.page('/shown');
    await page.waitForFunction(() => document.body.innerText.includes('connected'));
    await device.short('todos', 'milk', 'insert', { text: 'Milk' });
    await device.event('insert');
    await page.getByText('Milk').waitFor();
    await page.getByText('Milk').click();
    assert.deepEqual((await device.event('update')).data, { done: true });
    assert.deepEqual(page.complaints, []);
    await page.context().close();
});
