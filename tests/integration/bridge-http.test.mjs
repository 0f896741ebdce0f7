// SPDX-License-Identifier: BSD-3-Clause
// The HTTP fallback of the bridge: /sync/{collection}[/{recordId}], beside WebSockets and MQTT; and the page at /.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import { after, test } from 'node:test';
import { Bridge, startBoth, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { deadlineMs, memoryFactor, patience } from '../lib/env.mjs';
import { raw, request } from '../lib/http.mjs';
import { EPOCH, TIME } from '../lib/shape.mjs';
import { poll, withDeadline } from '../lib/wait.mjs';

const collections = {
    '*': {},
    server: { conflict: { strategy: 'serverWins' } },
    merged: { conflict: { strategy: 'mergeArrays', fields: ['tags'] } },
    upserting: { upsert: true },
};
const both = [];
for (const database of [true, false]) {
    const started = await startBoth({ collections }, { database });
    after(started.stop);
    both.push({ ...started, how: database ? 'reading the database' : 'reading through the broker' });
}
const [{ broker, bridge }] = both;
const at = (ms) => new Date(ms).toISOString();
const noneOpen = (b) => poll(async () => (await b.metric('http_open')) === 0, 'no request to be open');

for (const { broker, bridge, how } of both) {
    const ask = (method, where, options) => request(bridge, method, where, options);

    test(`every method, seen by the others, ${how}`, async () => {
        const c = unique('c');
        const [device, ana] = [await broker.client({ version: 5 }), await bridge.client()];
        await device.subscribe(`sync/${c}/evt/#`);
        await ana.subscribe(c);
        const empty = await ask('GET', `/sync/${c}`);
        assert.deepEqual([empty.status, empty.body.records, empty.body.more, empty.body.seq], [200, [], false, 0]);
        assert.match(empty.body.epoch, EPOCH);

        const posted = await ask('POST', `/sync/${c}`, { body: { recordId: 'r', data: { a: 1, b: [1] }, timestamp: at(Date.now()) } });
        assert.deepEqual([posted.status, posted.body], [200, { recordId: 'r', version: 1, seq: 1 }]);
        assert.deepEqual((await ana.take('insert')).data, { a: 1, b: [1] });
        const event = await device.event();
        assert.deepEqual([event.type, event.metadata.version, event.metadata.userId], ['insert', 1, null]);
        const patched = await ask('PATCH', `/sync/${c}/r`, { body: { delta: { a: null, d: 'x' }, baseVersion: 1, timestamp: at(Date.now()) } });
        assert.deepEqual([patched.status, patched.body], [200, { recordId: 'r', version: 2, seq: 2 }]);
        assert.deepEqual((await ana.take('update')).data, { a: null, d: 'x' });
        const one = await ask('GET', `/sync/${c}/r`);
        assert.equal(one.body.records.length, 1);
        const [record] = one.body.records;
        assert.match(record.updatedAt, TIME);
        assert.deepEqual(record, { recordId: 'r', data: { b: [1], d: 'x' }, version: 2, updatedAt: record.updatedAt });
        assert.deepEqual((await ask('GET', `/sync/${c}`)).body.records, [record]);

        assert.equal((await ask('PUT', `/sync/${c}/r`, { body: { data: { all: 'new' } } })).body.version, 3);
        assert.equal((await ask('POST', `/sync/${c}/r`, { body: { data: { all: 'newer' } } })).body.version, 4);
        assert.equal((await ask('PATCH', `/sync/${c}/r/`, { body: { data: { more: 1 } } })).body.version, 5);
        assert.deepEqual((await ask('GET', `/sync/${c}/r`)).body.records[0].data, { all: 'newer', more: 1 });
        const deleted = await ask('DELETE', `/sync/${c}/r`);
        assert.deepEqual([deleted.status, deleted.body], [200, { recordId: 'r', version: 6, seq: 6, deleted: true }]);
        assert.equal((await ana.take('delete')).metadata.version, 6);
        assert.deepEqual((await ask('DELETE', `/sync/${c}/r`)).body, { recordId: 'r', deleted: true });
        assert.equal((await ask('DELETE', `/sync/${c}/never`)).status, 200);
        assert.equal((await ask('GET', `/sync/${c}/r`)).status, 404);
        assert.deepEqual((await ask('GET', `/sync/${c}`)).body.records, []);
        assert.equal((await ask('POST', `/sync/${c}`, { body: { recordId: 'r', data: {} } })).body.version, 7);
        const head = await ask('HEAD', `/sync/${c}/r`);
        assert.deepEqual([head.status, head.text], [200, '']);
        assert.equal((await ask('HEAD', `/sync/${c}/never`)).status, 404);
        assert.equal((await ask('HEAD', `/sync/${c}`)).status, 200);
        await noneOpen(bridge);
    });

    test(`bytes stay what they are, ${how}`, async () => {
        const c = unique('c');
        const data = '{"n":12345678901234567890123,"d":1.10,"e":1E5,"z":{"\\u0000":"\\u00e9","":[]},"a":"\\ud83d\\ude00"}';
        const id = 'ä b?&=%;"\\..';
        const sent = await ask('POST', `/sync/${c}`, { text: `{"recordId":${JSON.stringify(id)},"data": ${data},"timestamp":null}` });
        assert.deepEqual([sent.status, sent.body.recordId], [200, id]);
        const { text } = await ask('GET', `/sync/${c}`);
        assert.ok(text.includes(`"data":${data},"version":1`), text);
        const one = await ask('GET', `/sync/${c}/${encodeURIComponent(id)}`);
        assert.ok(one.text.includes(`"data":${data}`), one.text);
        assert.equal(one.body.records[0].recordId, id);
        assert.equal((await ask('PATCH', `/sync/${c}/${encodeURIComponent(id)}`, { text: '{"delta":{"d":2.50}}' })).body.version, 2);
        assert.ok((await ask('GET', `/sync/${c}`)).text.includes('"d":2.50,"e":1E5'));
    });

    test(`filters, fields and pages, ${how}`, async () => {
        const c = unique('c');
        const device = await broker.client();
        const records = [
            { s: 'x', n: 1, t: true, z: null }, { s: 'y', n: 1.0, t: false }, { s: 'a b&c=d', n: 10 }, { s: 'true', n: '1', t: 'null' },
            { s: '\u00e9', n: 12345678901234567890n, deep: { s: 'x' } }, { s: 'gone' },
        ];
        for (const [i, r] of records.entries()) {
            const text = JSON.stringify(r, (k, v) => (typeof v === 'bigint' ? `#${v}#` : v)).replace(/"#(\d+)#"/g, '$1');
            await device.publish(`sync/${c}/cmd/${i}/insert`, text);
        }
        await device.short(c, '5', 'delete');
        const ids = async (query) => {
            const answer = await ask('GET', `/sync/${c}?${query}`);
            assert.equal(answer.status, 200, answer.text);
            return answer.body.records.map((r) => r.recordId).join('');
        };
        for (const [query, expected] of [
            ['', '01234'], ['where[s]=x', '0'], ['where%5Bs%5D=x', '0'], ['where[s]=a+b%26c%3Dd', '2'], ['where[s]=%C3%A9', '4'],
            ['where[n]=1', '013'], ['where[n]=1.0', '01'], ['where[n]=1e1', '2'], ['where[n]=12345678901234567890', '4'],
            ['where[n]=12345678901234567891', ''], ['where[t]=true', '0'], ['where[t]=false', '1'], ['where[t]=null', '234'],
            ['where[z]=null', '01234'], ['where[s]=true', '3'], ['where[deep]=x', ''], ['where[s]=x&where[n]=1', '0'], ['where[s]=x&where[s]=y', ''],
            ['where[s]=', ''], ['unknown=1&where=2&where[=3&where[]=null', '01234'], ['limit=2', '01'], ['limit=2&offset=2', '23'], ['offset=4', '4'],
            ['offset=9', ''], ['limit=0', ''], ['where[n]=1&offset=1&limit=1', '1'], ['limit=1&limit=3', '012'],
        ]) {
            assert.equal(await ids(query), expected, query);
        }
        const data = async (query) => (await ask('GET', `/sync/${c}?limit=1&${query}`)).body.records[0].data;
        assert.deepEqual(await data('fields=s,n'), { s: 'x', n: 1 });
        assert.deepEqual(await data('fields=s&fields=z,none'), { s: 'x', z: null });
        assert.deepEqual(await data('fields='), {});
        assert.deepEqual(await data('excludeFields=s,%74'), { n: 1, z: null });
        assert.deepEqual(await data('fields=s,n&excludeFields=n'), { s: 'x' });
        assert.deepEqual((await ask('GET', `/sync/${c}/0?fields=n`)).body.records[0].data, { n: 1 });

        const first = (await ask('GET', `/sync/${c}?limit=3`)).body;
        assert.deepEqual([first.more, first.seq, first.records.length], [true, 3, 3]);
        const rest = (await ask('GET', `/sync/${c}?since=${first.seq}&limit=100`)).body;
        assert.deepEqual([rest.more, rest.seq, rest.records.map((r) => r.recordId).join('')], [false, 7, '34']);
        assert.deepEqual((await ask('GET', `/sync/${c}?since=7`)).body.records, []);
        for (const [query, name] of [
            ['since=yesterday', 'since'], ['since=', 'since'], ['since=-1', 'since'], ['limit=-1', 'limit'], ['limit=1.5', 'limit'], ['limit=', 'limit'],
            ['offset=x', 'offset'], ['limit=99999999999999999999', 'limit'], [`fields=${'a,'.repeat(65)}`, 'fields'],
            ['where[a]=1&'.repeat(17), 'where'],
        ]) {
            const { status, body } = await ask('GET', `/sync/${c}?${query}`);
            assert.deepEqual([status, body.code, body.error.startsWith(`${name}:`)], [400, 'INVALID_MESSAGE', true], query + body.error);
        }
    });

    test(`since is inclusive, a time without a zone misses nothing, ${how}`, async () => {
        const c = unique('c');
        const start = Date.now() - 3 * 24 * 3600_000;
        for (let i = 0; i < 4; i++) {
            await ask('POST', `/sync/${c}`, { body: { recordId: `${i}`, data: { i }, timestamp: at(start + i * 3600_000) } });
        }
        const ids = async (since) => (await ask('GET', `/sync/${c}?since=${encodeURIComponent(since)}`)).body.records.map((r) => r.recordId).join('');
        assert.equal(await ids(at(start + 2 * 3600_000)), '23');
        assert.equal(await ids(at(start + 2 * 3600_000 + 1)), '3');
        assert.equal(await ids(at(start + 2 * 3600_000).replace('Z', '+00:00')), '23');
        assert.equal(await ids(at(start + 4 * 3600_000).replace('Z', '+02:00')), '23');
        const plus = await ask('GET', `/sync/${c}?since=${at(start + 4 * 3600_000).replace('Z', '+02:00')}`);
        assert.equal(plus.body.records.length, 2, 'a + that was not escaped');
        // as an app 14 hours east of Greenwich would write the second one's time
        assert.equal(await ids(at(start + 15 * 3600_000).replace('Z', '456')), '123');
    });

    test(`a large collection: whole, in order, and nobody waits for it, ${how}`, async () => {
        const c = unique('c');
        const [device, other] = [await broker.client({ qos: 1 }), await bridge.client()];
        const n = how === 'reading the database' ? 50_000 : 10_000;
        for (let i = 0; i < n; i += 2000) {
            await Promise.all(Array.from({ length: 2000 }, (_, j) => device.short(c, `r${i + j}`, 'insert', { i: i + j, text: 'x'.repeat(100) })));
        }
        let pinging = true;
        let worst = 0;
        const pings = (async () => {
            while (pinging) {
                const begin = performance.now();
                other.send({ type: 'ping' });
                await other.take('pong');
                worst = Math.max(worst, performance.now() - begin);
                await new Promise((resolve) => { setImmediate(resolve); });
            }
        })();
        const answers = await Promise.all([ask('GET', `/sync/${c}`), ask('GET', `/sync/${c}?where[i]=none`), ask('GET', `/sync/${c}/r${n - 1}`)]);
        pinging = false;
        await pings;
        assert.deepEqual(answers.map((a) => a.body.records.length), [n, 0, 1]);
        assert.equal(answers[0].headers['transfer-encoding'], 'chunked');
        assert.ok(answers[0].body.records.every((r, i) => r.recordId === `r${i}`));
        assert.ok(worst < deadlineMs / 2, `a ping took ${worst} ms`); // this process may not have had the processor either
        const pages = [];
        for (let offset = 0; offset < n; offset += 20_000) {
            pages.push(...(await ask('GET', `/sync/${c}?limit=20000&offset=${offset}`)).body.records);
        }
        assert.deepEqual(new Set(pages.map((r) => r.recordId)).size, n);
        await noneOpen(bridge);
    });

    test(`an answer ends where it ends, whatever is still being written then, ${how}`, async () => {
        const c = unique('c');
        const device = await broker.client();
        for (let i = 0; i < 16; i++) {
            await device.short(c, `r${i}`, 'insert', { text: 'x'.repeat(300_000) });
        }
        for (let limit = 1; limit <= 16; limit++) { // the last record is read while the one before it leaves in pieces, or not
            const { body } = await ask('GET', `/sync/${c}?limit=${limit}`, { headers: { connection: 'close' } });
            assert.deepEqual(body.records.map((r) => r.recordId), Array.from({ length: limit }, (_, i) => `r${i}`));
        }
        await noneOpen(bridge);
    });

    test(`a reader that does not read costs little, and gets everything once it does, ${how}`, async () => {
        const c = unique('c');
        const device = await broker.client();
        for (let i = 0; i < 40; i++) {
            await device.short(c, `r${i}`, 'insert', { text: 'x'.repeat(900_000) });
        }
        const pid = bridge.process.pid;
        // its own: pages of the database's file, which reading it shows as the process's, are the system's
        const memory = () => Number(/RssAnon:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]) * 1024;
        const sleeps = () => fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].startsWith('S');
        await ask('GET', `/sync/${c}/r1`);
        const before = memory();
        // with the next request behind it, which has to wait
        const socket = net.connect(bridge.port, '127.0.0.1');
        socket.write(`GET /sync/${c} HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
        await poll(async () => (await bridge.metric('http_open')) === 1, 'the request to be open');
        socket.pause();
        await poll(async () => { // until the socket is full; who is at work sleeps now and then, too
            let looks = 0;
            for (; looks < 20 && sleeps(); looks++) {
                await new Promise((resolve) => { setTimeout(resolve, 20); });
            }
            return looks === 20;
        }, 'the bridge to be at rest while nobody reads');
        assert.ok(memory() - before < 6e6 * memoryFactor, `${memory() - before} bytes`);
        let all = 0;
        let tail = '';
        socket.on('data', (data) => {
            all += data.length;
            tail = (tail + data.toString('latin1')).slice(-2000);
        });
        socket.resume();
        await withDeadline(new Promise((resolve) => { socket.on('close', resolve); }), () => `the end; ${all} bytes came: ${tail.slice(-300)}`);
        assert.ok(all > 36e6, `${all} bytes`);
        assert.match(tail, /"more":false.*\r\n0\r\n\r\nHTTP\/1.1 200 OK\r\n[^]*"status":"ok"/);
        await noneOpen(bridge);
    });
}

const ask = (method, where, options) => request(bridge, method, where, options);

test('conflicts: a loser is told what has won, ifVersion is strict', async () => {
    const c = 'server';
    const id = unique('r');
    await ask('POST', `/sync/${c}`, { body: { recordId: id, data: { a: 1 } } });
    await ask('PATCH', `/sync/${c}/${id}`, { body: { delta: { a: 2 }, baseVersion: 1 } });
    const lost = await ask('PATCH', `/sync/${c}/${id}`, { body: { delta: { a: 3 }, baseVersion: 1 } });
    assert.match(lost.body.updatedAt, TIME);
    assert.deepEqual([lost.status, lost.body], [200, { recordId: id, version: 2, seq: lost.body.seq, conflict: true, data: { a: 2 }, updatedAt: lost.body.updatedAt }]);
    const old = await ask('POST', `/sync/${unique('c')}`, { body: { recordId: 'x', data: {} } });
    assert.equal(old.body.version, 1);
    const merged = unique('r');
    await ask('POST', '/sync/merged', { body: { recordId: merged, data: { tags: ['a'] } } });
    await ask('PATCH', `/sync/merged/${merged}`, { body: { delta: { tags: ['a', 'b'] }, baseVersion: 1 } });
    const both = await ask('PATCH', `/sync/merged/${merged}`, { body: { delta: { tags: ['c'] }, baseVersion: 1 } });
    assert.deepEqual([both.status, both.body.version, both.body.conflict, both.body.data.tags.toSorted?.() ?? [...both.body.data.tags].sort()], [200, 3, true, ['a', 'b', 'c']]);
    for (const body of [{ data: { a: 9 }, ifVersion: 1 }, { data: { a: 9 }, metadata: { ifVersion: 7 } }]) {
        const refused = await ask('PUT', `/sync/${c}/${id}`, { body });
        assert.deepEqual([refused.status, refused.body.code, refused.body.metadata.version], [409, 'CONFLICT', 2]);
    }
    assert.equal((await ask('DELETE', `/sync/${c}/${id}`, { body: { ifVersion: 1 } })).status, 409);
    assert.equal((await ask('DELETE', `/sync/${c}/${id}`, { body: { ifVersion: 2 } })).body.version, 3);
    const again = { data: { a: 1 }, mutationId: unique('m') };
    assert.equal((await ask('POST', `/sync/${c}/${id}`, { body: again })).body.version, 4);
    assert.equal((await ask('POST', `/sync/${c}/${id}`, { body: again })).body.version, 4);
});

test('the same change by WebSocket and HTTP is one version, whichever comes first', async () => {
    const c = unique('c');
    const [app, other, device] = [await bridge.client(`/ws/${c}`), await bridge.client(), await broker.client()];
    await app.subscribed(c);
    await other.subscribe(c);
    const local = (ms) => at(ms).replace('Z', '123'); // as the app writes it: no zone, microseconds
    const now = Date.now();
    app.send({ type: 'insert', collection: c, recordId: 'a', data: { n: 1 }, timestamp: local(now) });
    assert.equal((await other.take('insert')).metadata.version, 1);
    const second = await ask('POST', `/sync/${c}`, { body: { recordId: 'a', data: { n: 1 }, timestamp: local(now + 700) } });
    assert.deepEqual([second.status, second.body.version], [200, 1]);
    app.send({ type: 'update', collection: c, recordId: 'a', data: { n: 2 }, timestamp: local(now + 2500) });
    assert.equal((await other.take('update')).metadata.version, 2);
    assert.equal((await ask('PATCH', `/sync/${c}/a`, { body: { delta: { n: 2 }, baseVersion: 1, timestamp: local(now + 3400) } })).body.version, 2);

    assert.equal((await ask('POST', `/sync/${c}`, { body: { recordId: 'b', data: { n: 1 }, timestamp: local(now) } })).body.version, 1);
    app.send({ type: 'insert', collection: c, recordId: 'b', data: { n: 1 }, timestamp: local(now - 900) });
    assert.equal((await app.write('update', c, 'b', { n: 2 })).metadata.version, 2, 'the copy was no version');
    await device.short(c, 'a', 'update', { by: 'somebody else' });
    assert.equal((await ask('PATCH', `/sync/${c}/a`, { body: { delta: { n: 2 }, baseVersion: 1, timestamp: local(now + 3400) } })).body.version, 2, 'others have changed it since');
    const { records } = (await ask('GET', `/sync/${c}`)).body;
    assert.deepEqual(records.find((r) => r.recordId === 'a').data, { n: 2, by: 'somebody else' });
});

test('what is no request is refused by name', async () => {
    const c = unique('c');
    await ask('POST', `/sync/${c}`, { body: { recordId: 'r', data: {} } });
    for (const [method, where, options, status, code, about] of [
        ['POST', `/sync/${c}`, { body: { data: {} } }, 400, 'INVALID_MESSAGE', /^recordId/],
        ['POST', `/sync/${c}`, { body: { recordId: 'r' } }, 400, 'INVALID_MESSAGE', /^data/],
        ['POST', `/sync/${c}`, { body: { recordId: 'r', data: [] } }, 400, 'INVALID_MESSAGE', /^data/],
        ['POST', `/sync/${c}`, { body: { recordId: 5, data: {} } }, 400, 'INVALID_MESSAGE', /^recordId/],
        ['POST', `/sync/${c}`, { body: { recordId: 'a/b', data: {} } }, 400, 'INVALID_MESSAGE', /^recordId/],
        ['POST', `/sync/${c}/r`, { body: { recordId: 'other', data: {} } }, 400, 'INVALID_MESSAGE', /^recordId/],
        ['POST', `/sync/${c}`, { body: { recordId: 'r', data: {}, timestamp: 'now' } }, 400, 'INVALID_MESSAGE', /^timestamp/],
        ['POST', `/sync/${c}`, { body: { recordId: 'r', data: {}, metadata: 1 } }, 400, 'INVALID_MESSAGE', /^metadata/],
        ['POST', `/sync/${c}`, { body: [] }, 400, 'INVALID_MESSAGE', /^body/],
        ['POST', `/sync/${c}`, { text: '{"recordId":"r","data":{"a":1,"a":2}}' }, 400, 'INVALID_MESSAGE', /duplicate|twice/],
        ['POST', `/sync/${c}`, { text: '{' }, 400, 'INVALID_MESSAGE', /./],
        ['POST', `/sync/${c}`, { text: '' }, 400, 'INVALID_MESSAGE', /^recordId/],
        ['POST', `/sync/${c}`, { text: Buffer.from('{"recordId":"r","data":{"a":"\xff"}}', 'latin1') }, 400, 'INVALID_MESSAGE', /UTF-8/],
        ['PATCH', `/sync/${c}/r`, { body: { delta: 1 } }, 400, 'INVALID_MESSAGE', /^data|^delta/],
        ['PATCH', `/sync/${c}/r`, { body: {} }, 400, 'INVALID_MESSAGE', /^data/],
        ['PATCH', `/sync/${c}/r`, { body: { delta: {}, baseVersion: '1' } }, 400, 'INVALID_MESSAGE', /baseVersion/],
        ['PATCH', `/sync/${c}/none`, { body: { delta: {} } }, 404, 'RECORD_NOT_FOUND', /./],
        ['PATCH', `/sync/${c}`, { body: { delta: {} } }, 405, 'INVALID_MESSAGE', /recordId/],
        ['DELETE', `/sync/${c}`, {}, 405, 'INVALID_MESSAGE', /recordId/],
        ['GET', '/sync/a%20b', {}, 400, 'INVALID_MESSAGE', /^collection/],
        ['GET', `/sync/${'c'.repeat(65)}`, {}, 400, 'INVALID_MESSAGE', /^collection/],
        ['GET', `/sync/${c}/a%01b`, {}, 400, 'INVALID_MESSAGE', /^recordId/],
        ['GET', `/sync/${c}/%ff`, {}, 400, 'INVALID_MESSAGE', /^recordId/],
        ['DELETE', `/sync/${c}/${'x'.repeat(129)}`, {}, 400, 'INVALID_MESSAGE', /^recordId/],
        ['GET', `/sync/${c}/a/b`, {}, 404, 'INVALID_MESSAGE', /./],
        ['GET', `/sync/${c}/a%2fb`, {}, 404, 'INVALID_MESSAGE', /./],
        ['GET', '/sync', {}, 404, 'INVALID_MESSAGE', /./],
        ['GET', '/sync/', {}, 404, 'INVALID_MESSAGE', /./],
        ['GET', '/nothing', {}, 404, 'INVALID_MESSAGE', /./],
        ['POST', '/', { body: {} }, 405, 'INVALID_MESSAGE', /./],
        ['DELETE', '/metrics', {}, 405, 'INVALID_MESSAGE', /./],
    ]) {
        const answer = await ask(method, where, options);
        const what = `${method} ${where} ${JSON.stringify(options)}: ${answer.text}`;
        assert.deepEqual([answer.status, answer.body.code], [status, code], what);
        assert.match(answer.body.error, about, what);
        assert.equal(answer.headers.allow !== undefined, status === 405, what);
    }
    const named = async (method, where, body) => (await ask(method, where, { body })).body.metadata;
    assert.deepEqual(await named('POST', `/sync/${c}`, { recordId: 'r', data: [] }), { collection: c, recordId: 'r' });
    assert.deepEqual(await named('POST', `/sync/${c}`, { recordId: 'a/b', data: {} }), { collection: c });
    assert.deepEqual(await named('PATCH', `/sync/${c}/r`, []), { collection: c, recordId: 'r' });
    assert.equal((await ask('PATCH', '/sync/upserting/new', { body: { delta: { a: 1 } } })).body.version, 1);
});

test('bodies: too long, in chunks, after 100 Continue, unwanted; several requests on one connection', async () => {
    const c = unique('c');
    const long = await ask('POST', `/sync/${c}`, { text: JSON.stringify({ recordId: 'r', data: { a: 'x'.repeat(3 << 20) } }) });
    assert.deepEqual([long.status, long.body.code, long.headers.connection, long.body.metadata], [413, 'INVALID_MESSAGE', 'close', { collection: c }]);
    const large = await ask('POST', `/sync/${c}`, { headers: { connection: 'keep-alive' }, body: { recordId: 'r', data: { a: 'x'.repeat(1_060_000) } } });
    assert.deepEqual([large.status, large.body.code, large.headers.connection], [413, 'INVALID_MESSAGE', 'keep-alive']);
    const chunked = (bytes, method = 'POST') => `${method} /sync/${c}/chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${bytes}`;
    assert.match(await raw(bridge, chunked('5;ext=1\r\n{"dat\r\nD\r\na":{"n":1.0}}\r\n0\r\nTrailer: x\r\n\r\n')), /^HTTP\/1.1 200 [^]*"version":1/);
    for (const bad of ['x\r\n', '5\r\n{"data', '-1\r\n', '5 5\r\n12345x', '\r\n', 'fffffffff\r\n', `1;${'x'.repeat(5000)}`]) {
        assert.match(await raw(bridge, chunked(bad), { until: /\}$/ }), /^HTTP\/1.1 400 [^]*INVALID_MESSAGE/, bad);
    }
    const piece = `8000\r\n${'x'.repeat(0x8000)}\r\n`;
    assert.match(await raw(bridge, chunked(piece.repeat(40))), /^HTTP\/1.1 413 /);
    assert.match(await raw(bridge, chunked('0\r\n\r\n', 'DELETE')), /^HTTP\/1.1 400 /);
    for (const head of ['Content-Length: 5\r\nTransfer-Encoding: chunked', 'Content-Length: -1', 'Content-Length: 1x', 'Content-Length: 1\r\nContent-Length: 2',
        'Transfer-Encoding: gzip, chunked', 'Content-Length: 99999999999999999999999']) {
        assert.match(await raw(bridge, `POST /sync/${c} HTTP/1.1\r\nHost: x\r\n${head}\r\n\r\n`), /^HTTP\/1.1 400 [^]*INVALID_MESSAGE/, head);
    }
    assert.match(await raw(bridge, `POST /sync/${c} HTTP/1.1\r\nHost: x\r\n\r\n`), /^HTTP\/1.1 400 /);

    const body = '{"data":{"n":1}}';
    const head = (n, more = '') => `POST /sync/${c}/e HTTP/1.1\r\nHost: x\r\nContent-Length: ${n}\r\n${more}\r\n`;
    const continued = await raw(bridge, head(body.length, 'Expect: 100-continue\r\n'), { until: /\r\n\r\n/ });
    assert.equal(continued, 'HTTP/1.1 100 Continue\r\n\r\n');
    assert.match(await raw(bridge, head(5_000_000, 'Expect: 100-continue\r\n')), /^HTTP\/1.1 413 /);
    const three = await raw(bridge, `${head(body.length)}${body}GET /sync/${c}/e HTTP/1.1\r\nHost: x\r\n\r\nDELETE /sync/${c}/e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    assert.deepEqual(three.match(/HTTP\/1.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 200'], three);
    assert.match(three, /"version":1,"seq"[^]*"data":\{"n":1\}[^]*"deleted":true/);
    const spaced = `Content-Length:\t${body.length} \t\r\nExpect: 100-continue \r\nConnection: close \r\n`; // RFC 9112, 5
    assert.match(await raw(bridge, `POST /sync/${c}/e HTTP/1.1\r\nHost: x\r\n${spaced}\r\n${body}`), /^HTTP\/1.1 100 [^]*HTTP\/1.1 200 [^]*"version":3/);
    assert.match(await raw(bridge, chunked('10\r\n{"data":{"n":2}}\r\n0\r\n\r\n').replace('chunked\r', 'chunked \t\r')), /^HTTP\/1.1 200 /);
    const refused = await raw(bridge, `POST /sync/a+b HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    assert.deepEqual(refused.match(/HTTP\/1.1 \d+/g), ['HTTP/1.1 400', 'HTTP/1.1 200'], refused);
    const old = await raw(bridge, `GET /sync/${c} HTTP/1.0\r\n\r\n`);
    assert.match(old, /^HTTP\/1.1 200 [^]*connection: close[^]*"more":false/);
    assert.doesNotMatch(old, /transfer-encoding/i);
    for (const connection of ['close', 'Close', 'TE, close', 'close ,TE']) { // it ends, else raw() would wait for more
        assert.match(await raw(bridge, `GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: ${connection}\r\n\r\n`), /connection: close\r\n/, connection);
    }

    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const sockets = new Set();
    agent.on('free', (socket) => sockets.add(socket));
    for (let i = 0; i < 20; i++) {
        assert.equal((await ask('POST', `/sync/${c}`, { agent, body: { recordId: `k${i}`, data: { i } } })).status, 200);
        assert.equal((await ask('GET', `/sync/${c}/k${i}`, { agent })).status, 200);
    }
    agent.destroy();
    assert.equal(sockets.size, 1);
    await noneOpen(bridge);
});

test('a connection is kept for as long as is announced, and a little longer', async () => {
    const hasty = await startBoth({ collections, bridge: { idleTimeoutSeconds: 1 } });
    const agents = [];
    try {
        const begin = async (b) => {
            const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
            agent.keepSocketAlive = () => true; // else it would close the connection itself, as announced
            const freed = new Promise((resolve) => { agent.once('free', resolve); });
            agents.push(agent);
            const { headers } = await request(b, 'GET', '/sync/c', { agent });
            return { agent, headers, socket: await freed };
        };
        const kept = await begin(bridge);
        const short = await begin(hasty.bridge);
        assert.deepEqual([kept, short].map((x) => [x.headers.connection, x.headers['keep-alive']]), [['keep-alive', 'timeout=60'], ['keep-alive', 'timeout=1']]);
        const freed = performance.now();
        const closed = new Promise((resolve) => { short.socket.once('close', resolve); });
        await withDeadline(closed, () => 'the end of an idle connection', 6000 + deadlineMs);
        assert.ok(performance.now() - freed > 4000, `closed after ${performance.now() - freed} ms`);
        let reused;
        kept.agent.once('free', (socket) => { reused = socket; });
        assert.equal((await ask('GET', '/sync/c', { agent: kept.agent })).status, 200);
        assert.equal(reused, kept.socket, 'the other one is still there');
        const last = await request(bridge, 'GET', '/sync/c', { headers: { connection: 'close' } });
        assert.deepEqual([last.headers.connection, last.headers['keep-alive']], ['close', undefined]);
    } finally {
        agents.forEach((agent) => agent.destroy());
        await hasty.stop();
    }
});

test('heads that are understood in two ways, before the one before is answered', async () => {
    const c = unique('c');
    const first = `GET /sync/${c} HTTP/1.1\r\nHost: x\r\n\r\n`;
    for (const head of ['Content-Length: 5\r\nTransfer-Encoding: chunked', 'Content-Length: 5\r\nTransfer-Encoding: gzip', 'Content-Length: 5 5',
        'Content-Length: 5\r\nContent-Length: 5', 'Content-Length: -1', `Content-Length: ${'0'.repeat(30)}5`]) {
        for (const method of ['GET', 'DELETE', 'PATCH', 'PUT', 'POST']) {
            const answers = await raw(bridge, `${first}${method} /sync/${c}/r HTTP/1.1\r\nHost: x\r\n${head}\r\n\r\n12345${first}`, { until: /HTTP[^]*HTTP[^]*\}$/ });
            assert.deepEqual(answers.match(/HTTP\/1.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 400'], `${method} ${head}: ${answers}`);
        }
    }
    assert.equal((await ask('GET', '/healthz')).status, 200);
});

test('requests with bodies that come before the one before is answered', async () => {
    const c = unique('c');
    const healthz = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n';
    const post = (id, n) => {
        const body = JSON.stringify({ recordId: id, data: { n, pad: 'p'.repeat(n) } });
        return `POST /sync/${c} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    };
    const last = `GET /sync/${c}?fields=n HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
    const requests = [healthz, post('a', 10), healthz, post('b', 20_000), post('c', 5), `DELETE /sync/${c}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}`, post('a', 7), last];
    const all = await raw(bridge, requests.join(''));
    const answers = all.split(/(?=HTTP\/1\.1 )/).map((answer) => [answer.slice(9, 12), /\r\n\r\n(.*)/s.exec(answer)[1]]);
    assert.deepEqual(answers.map(([status]) => status), requests.map(() => '200'), all);
    assert.deepEqual(answers.slice(0, -1).map(([, body]) => JSON.parse(body)).map(({ status, recordId, version }) => status ?? [recordId, version]),
        ['ok', ['a', 1], 'ok', ['b', 1], ['c', 1], ['a', 2], ['a', 3]]);
    assert.match(answers.at(-1)[1], /"b","data":\{"n":20000\}[^]*"c","data":\{"n":5\}[^]*"a","data":\{"n":7\}/);
    assert.equal((await ask('GET', '/healthz')).status, 200);
});

test('an upgrade to something else is only an offer, and one that is refused leaves nothing behind', async () => {
    const c = unique('c');
    const body = '{"recordId":"r","data":{}}';
    const h2c = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n';
    const close = 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
    const post = (more) => `POST /sync/${c} HTTP/1.1\r\nHost: x\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`;
    const statuses = (text) => [...text.matchAll(/HTTP\/1.\d (\d+) /g)].map(([, status]) => status);
    assert.deepEqual(statuses(await raw(bridge, `${post(h2c)}GET /sync/${c}/r HTTP/1.1\r\nHost: x\r\n${h2c}\r\n${close}`)), ['200', '200', '200']);
    const proxied = `GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n`;
    assert.match(await raw(bridge, proxied), /^HTTP\/1.1 404 [^]*there is nothing at this path/);
    // a body that nobody reads is not the next request
    const keepAlive = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n';
    for (const [upgrade, status] of [['websocket', '404'], ['TLS/1.2', '403'], ['websocket, h2c', '403']]) {
        const text = `POST /sync/${c} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${upgrade}\r\nContent-Length: ${close.length}\r\n\r\n${close}`;
        assert.deepEqual(statuses(await raw(bridge, keepAlive + text)), ['200', status], upgrade);
    }
});

test('what libwebsockets turns away itself', async () => {
    for (const line of ['TRACE /sync/c', 'PROPFIND /sync/c', 'FOO /sync/c', 'OPTIONS *', 'GET http://x/sync/c', 'GET /sync/%zz']) {
        assert.match(await raw(bridge, `${line} HTTP/1.1\r\nHost: x\r\n\r\n`), /^HTTP\/1.0 403 [^]*<h1>403/, line);
    }
    for (const line of ['CONNECT x:1', 'GET /sync/c%00', `GET /${'x'.repeat(13_000)}`]) {
        assert.equal(await raw(bridge, `${line} HTTP/1.1\r\nHost: x\r\n\r\n`), '', line);
    }
});

test('rubbish, and clients that leave', async () => {
    const c = unique('c');
    for (const rubbish of ['\r\n\r\n', 'x', 'GET', 'GET / HTTP/9.9\r\n\r\n', 'FOO /sync/x HTTP/1.1\r\n\r\n', 'GET /sync/\0 HTTP/1.1\r\n\r\n', `GET /sync/${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n`,
        `GET /sync/${c}?${'a=1&'.repeat(2000)} HTTP/1.1\r\n\r\n`, `GET /sync/${c}?% HTTP/1.1\r\n\r\n`, `GET /sync/${c}/%zz HTTP/1.1\r\n\r\n`, 'POST * HTTP/1.1\r\n\r\n',
        `POST /sync/${c} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{`, `GET /sync/../../${c} HTTP/1.1\r\n\r\n`, '\x16\x03\x01\x00\xa5\x01\x00', `GET /sync/${c} HTTP/1.1\r\n${'A: b\r\n'.repeat(500)}\r\n`,
        `GET /sync/${c} HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n`, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
        await new Promise((resolve) => {
            const socket = net.connect(bridge.port, '127.0.0.1', () => socket.end(Buffer.from(rubbish, 'latin1')));
            socket.on('error', resolve);
            socket.on('close', resolve);
            socket.resume();
        });
    }
    assert.equal(await raw(bridge, `CONNECT /sync/${c} HTTP/1.1\r\nHost: x\r\n\r\n`), '');
    assert.match(await raw(bridge, 'TRACE / HTTP/1.1\r\nHost: x\r\n\r\n'), /^HTTP\/1.\d 403 /);
    const device = await broker.client();
    await Promise.all(Array.from({ length: 2000 }, (_, i) => device.short(c, `r${i}`, 'insert', { text: 'x'.repeat(1000) })));
    for (let i = 0; i < 50; i++) { // in the middle of a body, of a write, of an answer
        const socket = net.connect(bridge.port, '127.0.0.1');
        const text = JSON.stringify({ recordId: `gone${i}`, data: {} });
        socket.on('error', () => {});
        socket.write(i % 3 === 0 ? `GET /sync/${c} HTTP/1.1\r\nHost: x\r\n\r\n`
            : `POST /sync/${c} HTTP/1.1\r\nHost: x\r\nContent-Length: ${text.length + (i % 3 === 1 ? 5 : 0)}\r\n\r\n${text}`, () => socket.resetAndDestroy());
    }
    await noneOpen(bridge);
    assert.equal((await ask('GET', '/healthz')).status, 200);
});

test('200 requests at once', async () => {
    const c = unique('c');
    const agent = new http.Agent({ maxSockets: Infinity });
    const writes = await Promise.all(Array.from({ length: 200 }, (_, i) => ask('POST', `/sync/${c}`, { agent, body: { recordId: `r${i}`, data: { i } } })));
    assert.deepEqual(new Set(writes.map((w) => `${w.status} ${w.body.version}`)), new Set(['200 1']));
    assert.equal(new Set(writes.map((w) => w.body.seq)).size, 200);
    const reads = await Promise.all(Array.from({ length: 200 }, (_, i) => ask('GET', i % 2 ? `/sync/${c}` : `/sync/${c}/r${i}`, { agent })));
    assert.deepEqual(new Set(reads.map((r) => `${r.status} ${r.body.records.length}`)), new Set(['200 200', '200 1']));
    agent.destroy();
});

test('pages of other origins', async (t) => {
    const open = await ask('GET', '/sync/x', { headers: { origin: 'https://anyone.example' } });
    assert.deepEqual([open.headers['access-control-allow-origin'], open.headers.vary], ['*', undefined]);
    const listed = new Bridge(broker, { collections, bridge: { allowedOrigins: ['https://app.example'] } });
    await listed.start();
    t.after(() => listed.stop());
    const c = unique('c');
    const there = (method, origin, options = {}) => request(listed, method, `/sync/${c}/r`, { ...options, headers: { ...(origin ? { origin } : {}), ...options.headers } });
    const preflight = await there('OPTIONS', 'https://app.example', { headers: { 'access-control-request-method': 'PATCH' } });
    assert.equal(preflight.status, 204);
    assert.deepEqual([preflight.headers['access-control-allow-origin'], preflight.headers.vary, preflight.headers['access-control-allow-credentials']],
        ['https://app.example', 'Origin', undefined]);
    assert.match(preflight.headers['access-control-allow-methods'], /PATCH/);
    assert.match(preflight.headers['access-control-allow-headers'], /Authorization, Content-Type/);
    assert.ok(preflight.headers['access-control-max-age'] > 0);
    const allowed = await there('POST', 'https://app.example', { body: { data: {} } });
    assert.deepEqual([allowed.status, allowed.headers['access-control-allow-origin']], [200, 'https://app.example']);
    assert.equal((await there('GET', 'https://app.example')).headers['access-control-allow-methods'], undefined);
    for (const method of ['GET', 'POST', 'OPTIONS']) {
        const refused = await there(method, 'https://evil.example', method === 'POST' ? { body: { data: { evil: 1 } } } : {});
        assert.deepEqual([refused.status, refused.body.code, refused.headers['access-control-allow-origin']], [403, 'UNAUTHORIZED', undefined]);
    }
    const plain = await there('GET');
    assert.deepEqual([plain.status, plain.headers['access-control-allow-origin'], plain.headers.vary], [200, undefined, 'Origin']);
    assert.deepEqual(plain.body.records[0].data, {});
});

test('the page at / and its files, with nothing from elsewhere', async () => {
    for (const [where, type] of [['/', 'text/html'], ['/app.js', 'text/javascript'], ['/style.css', 'text/css']]) {
        const { status, headers, text } = await ask('GET', where);
        assert.deepEqual([status, headers['content-type'].split(';')[0]], [200, type]);
        assert.match(headers['content-security-policy'], /default-src 'none'/);
        assert.equal(text, fs.readFileSync(new URL(`../../client/web/${where === '/' ? 'index.html' : where}`, import.meta.url), 'utf8'));
        assert.doesNotMatch(text, /https?:\/\//);
        const head = await ask('HEAD', where);
        assert.deepEqual([head.status, head.text, head.headers['content-length']], [200, '', headers['content-length']]);
    }
});

test('the broker is gone: 503 at once, what is on its way within a bounded time, and it goes on', async (t) => {
    for (const database of [true, false]) {
        const started = await startBoth({ collections }, { database });
        t.after(started.stop);
        const there = (...args) => request(started.bridge, ...args);
        await there('POST', '/sync/c', { body: { recordId: 'r', data: { a: 1 } } });
        started.broker.process.kill('SIGSTOP');
        const mark = started.bridge.log.length;
        const waiting = [there('POST', '/sync/c', { body: { recordId: 'w', data: {} } }), ...(database ? [] : [there('GET', '/sync/c')])];
        await poll(async () => (await started.bridge.metric('http_open')) === waiting.length, 'the requests to be open');
        await started.broker.kill();
        await started.bridge.waitForLog(/MQS3011/, mark);
        for (const answer of await Promise.all(waiting)) {
            assert.deepEqual([answer.status, answer.body.code], [503, 'SERVER_ERROR']);
        }
        const begin = Date.now();
        for (const [method, where, body] of [['POST', '/sync/c', { recordId: 'r', data: {} }], ['PATCH', '/sync/c/r', { delta: {} }], ['DELETE', '/sync/c/r']]) {
            const refused = await there(method, where, { body });
            assert.deepEqual([refused.status, refused.body.code], [503, 'SERVER_ERROR']);
        }
        const read = await there('GET', '/sync/c/r');
        assert.equal(read.status, database ? 200 : 503);
        assert.ok(Date.now() - begin < 1500 * patience, `${Date.now() - begin} ms`);
        await started.broker.start();
        await started.bridge.waitForLog(/MQS3010/, mark);
        assert.equal((await there('PATCH', '/sync/c/r', { body: { delta: { b: 2 } } })).body.version, 2);
        assert.deepEqual((await there('GET', '/sync/c/r')).body.records[0].data, { a: 1, b: 2 });
        await noneOpen(started.bridge);
    }
});

test('tokens, rules and limits are those of WebSocket', async (t) => {
    const secret = 'a secret of the test';
    const rules = { open: {}, notes: { read: ['user:ana', 'role:staff'], write: ['role:staff'] }, mine: { read: ['role:staff'], write: ['role:staff'], owner: 'who' } };
    const own = await Broker.start({ config: { collections: rules, trustedUsers: ['the-bridge'] } });
    t.after(() => own.stop());
    const keyFile = path.join(own.directory, 'jwt.key');
    fs.writeFileSync(keyFile, `${secret}\n`);
    const config = { collections: rules, trustedUsers: ['the-bridge'], auth: { jwt: { algorithm: 'HS256', keyFile } }, bridge: { username: 'the-bridge' } };
    const guarded = await Bridge.start(own, config);
    t.after(() => guarded.stop());
    const seconds = Math.floor(Date.now() / 1000);
    const tokens = { ana: token(secret, { userId: 'ana' }), bo: token(secret, { userId: 'bo' }), stan: token(secret, { sub: 'stan', roles: ['staff'] }) };
    const as = (who, method, where, body, target = guarded) => request(target, method, where, { body, headers: who ? { authorization: `Bearer ${tokens[who] ?? who}` } : {} });
    for (const bad of [undefined, 'x', token('another', { userId: 'ana' }), token(secret, { userId: 'ana', exp: seconds - 1 }), 'x'.repeat(9000)]) {
        const refused = await as(bad, 'GET', '/sync/open');
        assert.deepEqual([refused.status, refused.body.code, refused.headers['www-authenticate']], [401, 'AUTH_FAILED', 'Bearer']);
    }
    assert.deepEqual((await as('x', 'GET', '/sync/open/r%20r')).body.metadata, { collection: 'open', recordId: 'r r' });
    assert.equal((await request(guarded, 'GET', '/sync/open', { headers: { authorization: 'Basic eDp5' } })).status, 401);
    assert.equal((await request(guarded, 'GET', '/sync/open', { headers: { authorization: `bearer   ${tokens.ana}` } })).status, 200);
    assert.match(await raw(guarded, `GET /sync/open HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${tokens.ana} \t\r\nConnection: close\r\n\r\n`), /^HTTP\/1.1 200 /);
    const device = await own.client({ username: 'the-bridge' });
    await device.subscribe('sync/+/evt/#');
    assert.equal((await as('ana', 'POST', '/sync/open', { recordId: 'r', data: {} })).status, 200);
    assert.equal((await device.event()).metadata.userId, 'ana');
    assert.equal((await as('stan', 'POST', '/sync/notes', { recordId: 'n', data: { a: 1 } })).status, 200);
    assert.equal((await as('ana', 'GET', '/sync/notes')).body.records.length, 1);
    for (const [who, method, where, body] of [['ana', 'POST', '/sync/notes', { recordId: 'n', data: {} }], ['ana', 'DELETE', '/sync/notes/n'], ['bo', 'GET', '/sync/notes'], ['bo', 'GET', '/sync/notes/n']]) {
        const refused = await as(who, method, where, body);
        assert.deepEqual([refused.status, refused.body.code], [403, 'UNAUTHORIZED'], `${who} ${method} ${where}`);
    }
    const nowhere = await as('stan', 'GET', '/sync/nowhere');
    assert.deepEqual([nowhere.status, nowhere.body.code], [404, 'COLLECTION_NOT_FOUND']);
    for (const [id, who] of [['1', 'ana'], ['2', 'bo'], ['3', 'ana']]) {
        await as('stan', 'POST', '/sync/mine', { recordId: id, data: { who } });
    }
    assert.deepEqual((await as('ana', 'GET', '/sync/mine')).body.records.map((r) => r.recordId), ['1', '3']);
    assert.equal((await as('ana', 'GET', '/sync/mine/2')).status, 404);
    assert.equal((await as('bo', 'GET', '/sync/mine/2')).status, 200);
    assert.equal((await as('stan', 'GET', '/sync/mine?offset=1')).body.records.length, 2);
    const bos = await guarded.client(`/ws?token=${tokens.bo}`);
    await bos.subscribe('mine');
    assert.equal((await as('ana', 'POST', '/sync/mine', { recordId: '4', data: { who: 'ana' } })).body.version, 1);
    assert.equal((await as('ana', 'PATCH', '/sync/mine/4', { delta: { who: 'bo' } })).body.version, 2, 'handed over');
    assert.equal((await bos.take('insert')).recordId, '4');
    for (const [method, where, body] of [['PATCH', '/sync/mine/4', { delta: { x: 1 } }], ['DELETE', '/sync/mine/2'], ['POST', '/sync/mine', { recordId: '5', data: { who: 'bo' } }]]) {
        const refused = await as('ana', method, where, body);
        assert.deepEqual([refused.status, refused.body.code], [403, 'UNAUTHORIZED'], `${method} ${where}`);
    }
    assert.deepEqual((await as('bo', 'GET', '/sync/mine')).body.records.map((r) => r.recordId), ['2', '4']);
    assert.equal((await as('bo', 'DELETE', '/sync/mine/4')).body.version, 3);

    const limits = { messagesPerMinute: 20, connectionsPerUser: 1 };
    for (const auth of [config.auth, undefined]) {
        const limited = await Bridge.start(own, { ...config, auth, limits });
        t.after(() => limited.stop());
        const who = auth && 'ana';
        const ws = await limited.client(auth ? `/ws?token=${tokens.ana}` : '/ws'); // her one connection
        const answers = [];
        while (answers.filter((a) => a.status === 429).length < 3) {
            answers.push(await as(who, 'GET', '/sync/open', undefined, limited));
            assert.ok(answers.length < 70, 'more than in two minutes');
        }
        const { body, headers } = answers.at(-1);
        assert.deepEqual([body.code, Number(headers['retry-after']) <= 60], ['RATE_LIMIT_EXCEEDED', true]);
        assert.equal(answers[0].status, 200);
        assert.equal((await as('bo', 'GET', '/sync/open', undefined, limited)).status, auth ? 200 : 429);
        if (auth) {
            ws.send({ type: 'subscribe', collection: 'open' });
            assert.equal((await ws.next()).code, 'RATE_LIMIT_EXCEEDED', 'counted together');
        }
    }
});

test('over TLS', async (t) => {
    const file = (name) => path.join(broker.directory, name);
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-keyout', file('key.pem'), '-out', file('cert.pem')]);
    assert.equal(made.status, 0, String(made.stderr));
    const secure = await Bridge.start(broker, { collections, bridge: { tls: { certFile: file('cert.pem'), keyFile: file('key.pem') } } });
    t.after(() => secure.stop());
    const c = unique('c');
    const agent = new https.Agent({ keepAlive: true, ca: fs.readFileSync(file('cert.pem')), checkServerIdentity: () => undefined });
    t.after(() => agent.destroy());
    for (let i = 0; i < 10; i++) {
        const written = await request(secure, 'POST', `/sync/${c}`, { agent, secure: true, body: { recordId: `r${i}`, data: { text: 'x'.repeat(900_000) } } });
        assert.deepEqual([written.status, written.body.version], [200, 1]);
    }
    const all = await Promise.all([1, 2, 3].map(() => request(secure, 'GET', `/sync/${c}`, { agent, secure: true })));
    assert.deepEqual(all.map((a) => [a.body.records.length, a.text.length > 9_000_000]), [[10, true], [10, true], [10, true]]);
    const long = await request(secure, 'POST', `/sync/${c}`, { agent, secure: true, text: ' '.repeat(3 << 20) });
    assert.equal(long.status, 413);
    await noneOpen({ metric: async () => Number(/http_open (\d+)/.exec((await request(secure, 'GET', '/metrics', { agent, secure: true })).text)[1]) });
});

test('the bridge stops while an answer is on its way', async (t) => {
    const stopping = await Bridge.start(broker, { collections });
    t.after(() => stopping.kill());
    broker.process.kill('SIGSTOP');
    const waiting = request(stopping, 'POST', `/sync/${unique('c')}`, { body: { recordId: 'r', data: {} } });
    await poll(async () => (await stopping.metric('http_open')) === 1, 'the request to be open');
    stopping.process.kill('SIGTERM');
    await stopping.waitForLog(/MQS3006/);
    broker.process.kill('SIGCONT');
    assert.equal((await waiting).status, 200);
    assert.deepEqual(await stopping.exited, { code: 0, signal: null });
});
