// SPDX-License-Identifier: BSD-3-Clause
// The bridge's WebSocket protocol, beside MQTT devices, against a real broker.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';

const config = { collections: { '*': {}, merged: { conflict: { strategy: 'serverWins' } }, closed: { read: [], write: [] } } };

for (const database of [true, false]) {
    const how = database ? 'reading the database' : 'reading through the broker';
    const { broker, bridge, stop } = await startBoth(config, { database });
    after(stop);

    test(`a record travels WebSocket -> MQTT -> WebSocket, ${how}`, async () => {
        const collection = unique('c');
        const [device, ana, bo] = await Promise.all([broker.client({ version: 5 }), bridge.client(), bridge.client()]);
        await device.subscribe(`sync/${collection}/evt/#`);
        const empty = await ana.subscribe(collection);
        assert.deepEqual([empty.recordCount, empty.seq, empty.pages.length], [0, 0, 0]);
        await bo.subscribe(collection);

        const data = '{"text":"hello","n":12345678901234567890,"d":1.10,"u":"\\u0000\\ud83d\\ude00"}';
        ana.send(`{"type":"insert","collection":"${collection}","recordId":"r","data":${data},"metadata":{"mutationId":"m1"}}`);
        const ack = await ana.take('ack');
        assert.deepEqual([ack.recordId, ack.metadata.mutationId, ack.metadata.version], ['r', 'm1', 1]);
        const event = await device.event();
        assert.deepEqual([event.type, event.recordId, event.metadata.version, event.metadata.userId], ['insert', 'r', 1, null]);
        await bo.take({ type: 'insert', recordId: 'r', version: 1 });

        await device.cmd(collection, { type: 'update', recordId: 'r', data: { text: 'from a device' } });
        for (const client of [ana, bo]) {
            const update = await client.take('update');
            assert.deepEqual([update.data, update.metadata.version], [{ text: 'from a device' }, 2]);
        }
        bo.send({ type: 'delete', collection, recordId: 'r' });
        assert.equal((await ana.take('delete')).metadata.version, 3);
        assert.deepEqual(await bo.rest(), [], 'the sender is not told of its own change');
        assert.deepEqual(await ana.rest(), []);
    });

    test(`bytes stay what they are, ${how}`, async () => {
        const collection = unique('c');
        const [ana, bo] = await Promise.all([bridge.client(), bridge.client()]);
        await bo.subscribe(collection);
        const data = '{"n":12345678901234567890123,"d":1.10,"e":1E5,"":{"\\u0000":"\\u00e9"}}';
        ana.send(`{"type":"insert","collection":"${collection}","recordId":"r","data":${data}}`);
        await bo.waiters.until(() => bo.texts.length > 0, () => 'an event');
        assert.ok(bo.texts[0].includes(data), bo.texts[0]);
    });

    test(`subscribe: snapshot, since, sync, unsubscribe, ${how}`, async () => {
        const collection = unique('c');
        const device = await broker.client();
        await Promise.all(Array.from({ length: 1234 }, (_, i) => device.short(collection, `r${i}`, 'insert', { i })));
        await device.short(collection, 'r7', 'delete');
        const ana = await bridge.client();
        const all = await ana.subscribe(collection);
        assert.deepEqual([all.recordCount, all.records.size, all.pages.length > 2, all.pages[0].metadata.full], [1233, 1233, true, true]);
        assert.equal(all.pages[0].metadata.total, 1233);
        await device.short(collection, 'r8', 'update', { j: 1 });
        assert.deepEqual((await ana.take('update')).data, { j: 1 });

        ana.send({ type: 'unsubscribe', collection });
        await ana.take('unsubscribed');
        await device.short(collection, 'r9', 'delete');
        await device.short(collection, 'new', 'insert', {});
        assert.deepEqual(await ana.rest(), []);
        const since = await ana.subscribe(collection, { since: all.seq, epoch: all.epoch });
        assert.deepEqual([[...since.records.keys()].sort(), [...since.deleted.keys()]], [['new', 'r8'], ['r9']]);
        assert.equal(since.pages[0].metadata.full, false);
        const again = await ana.subscribe(collection, { since: since.seq, epoch: since.epoch });
        assert.deepEqual([again.records.size, again.deleted.size, again.pages.length], [0, 0, 1]);
        for (const epoch of ['0'.repeat(32), '']) {
            const other = await ana.subscribe(collection, { since: since.seq, epoch });
            assert.deepEqual([other.records.size, other.pages[0].metadata.full], [1233, true]);
        }
        ana.send({ type: 'subscribe', collection, metadata: { sync: false } });
        await ana.take('subscribed');
        assert.deepEqual(await ana.rest(), []);

        ana.send({ type: 'sync', collection, metadata: { limit: 3 } });
        const limited = await ana.take('sync');
        assert.deepEqual([limited.data.records.length, limited.metadata.more, limited.metadata.total], [3, true, 3]);
        ana.send({ type: 'sync', collection });
        assert.equal((await ana.pages(collection)).records.size, 1233);
    });

    test(`no gap and no repeat while others write, ${how}`, async () => {
        const collection = unique('c');
        const device = await broker.client();
        let writing = true;
        let written = 0;
        const writer = (async () => {
            while (writing) {
                await Promise.all(Array.from({ length: 8 }, () => device.short(collection, `r${written++ % 50}`, 'insert', { n: written })));
            }
        })();
        const clients = [];
        for (let i = 0; i < 6; i++) {
            const client = await bridge.client();
            client.snapshot = await client.subscribe(collection);
            clients.push(client);
        }
        const least = written + 200;
        while (written < least) {
            await new Promise((resolve) => setImmediate(resolve));
        }
        writing = false;
        await writer;
        const last = await bridge.client();
        const end = (await last.subscribe(collection)).seq;
        for (const client of clients) {
            let { seq } = client.snapshot;
            while (seq < end) {
                const m = await client.next();
                if (m.type === 'sync') { // a collapse is allowed, a gap is not
                    ({ seq } = m.metadata);
                    m.data.records.forEach((r) => client.snapshot.records.set(r.id, r));
                } else {
                    assert.equal(m.metadata.seq, seq + 1);
                    ({ seq } = m.metadata);
                    const record = client.snapshot.records.get(m.recordId);
                    assert.equal(m.metadata.version, (record?.version ?? 0) + 1);
                    client.snapshot.records.set(m.recordId, { version: m.metadata.version, data: { ...record?.data, ...m.data } });
                }
            }
            assert.deepEqual(await client.rest(), []);
        }
        last.send({ type: 'sync', collection });
        const { records } = await last.pages(collection);
        for (const client of clients) {
            for (const [id, record] of records) {
                const { version, data } = client.snapshot.records.get(id);
                assert.deepEqual([version, data], [record.version, record.data], id);
            }
        }
    });

    test(`the conflict's winner reaches the loser, ${how}`, async () => {
        const [ana, bo] = await Promise.all([bridge.client(), bridge.client()]);
        const recordId = unique('r');
        await ana.subscribe('merged');
        await bo.write('insert', 'merged', recordId, { a: 1 });
        await bo.write('update', 'merged', recordId, { a: 2 });
        await ana.take({ type: 'update', version: 2 });
        const ack = await ana.write('update', 'merged', recordId, { a: 3 }, { baseVersion: 1 });
        assert.deepEqual([ack.type, ack.metadata.conflict, ack.metadata.version], ['ack', true, 2]);
        const winner = await ana.take({ type: 'update', conflict: true });
        assert.deepEqual([winner.data, winner.metadata.version], [{ a: 2 }, 2]);
        assert.deepEqual(await bo.rest(), []);
    });

    test(`errors, ${how}`, async () => {
        const collection = unique('c');
        const ana = await bridge.client();
        const cases = [
            ['{"type":"nonsense"}', 'INVALID_MESSAGE'],
            ['not json', 'INVALID_MESSAGE'],
            ['[]', 'INVALID_MESSAGE'],
            [`{"type":"insert","collection":"${collection}","recordId":"a/b","data":{}}`, 'INVALID_MESSAGE'],
            [`{"type":"insert","collection":"${collection}","recordId":"r"}`, 'INVALID_MESSAGE'],
            [`{"type":"insert","collection":"${collection}","recordId":"r","data":{"a":1,"a":2}}`, 'INVALID_MESSAGE'],
            [`{"type":"update","collection":"${collection}","recordId":"nobody","data":{}}`, 'RECORD_NOT_FOUND'],
            [`{"type":"insert","collection":"${collection}","recordId":"r","data":{},"metadata":{"ifVersion":3}}`, 'CONFLICT'],
            ['{"type":"subscribe","collection":"closed"}', 'UNAUTHORIZED'],
            ['{"type":"sync","collection":"closed"}', 'UNAUTHORIZED'],
            ['{"type":"insert","collection":"closed","recordId":"r","data":{}}', 'UNAUTHORIZED'],
        ];
        for (const [text, code] of cases) {
            ana.send(text);
            assert.equal((await ana.next()).code, code, text);
        }
        ana.send(Buffer.from([1, 2, 3]));
        assert.equal((await ana.next()).code, 'INVALID_MESSAGE');
        ana.send({ type: 'auth', token: 'whatever' });
        assert.equal((await ana.next()).type, 'authenticated');
        ana.send({ type: 'insert', collection, recordId: 'big', data: { x: 'x'.repeat(1_200_000) } });
        assert.equal((await ana.take('error')).code, 'INVALID_MESSAGE');
        assert.equal((await ana.waitClosed()).code, 1009);
    });

    test(`/ws/{c1},{c2}: subscribed already, whole records, tombstones as deletes, ${how}`, async () => {
        const [a, b] = [unique('a'), unique('b')];
        const device = await broker.client();
        for (const id of ['x', 'y', 'z']) {
            await device.short(a, id, 'insert', { id, keep: true });
        }
        await device.short(a, 'y', 'delete');
        const app = await bridge.client(`/ws/${a},${b}`);
        const snapshot = await app.subscribed(a);
        await app.take({ type: 'subscribed', collection: b });
        assert.deepEqual([...snapshot.records.keys()].sort(), ['x', 'z']);
        assert.equal((await app.take('delete')).recordId, 'y');
        app.send({ type: 'subscribe', collection: a });
        await app.take({ type: 'subscribed', collection: a });
        assert.deepEqual(await app.rest(), []);
        await device.short(a, 'x', 'update', { n: 1 });
        const update = await app.take('update');
        assert.deepEqual([update.data, update.metadata.version], [{ id: 'x', keep: true, n: 1 }, 2]);
        await device.short(b, 'new', 'insert', { n: 2 });
        await device.short(a, 'z', 'delete');
        assert.equal((await app.take('delete')).recordId, 'z');
        app.send({ type: 'update', collection: a, recordId: 'x', data: { mine: 1 } });
        await app.take({ type: 'insert', collection: b });
    });

    test(`whole updates: an insert is an insert and a delete a delete, ${how}`, async () => {
        const collection = unique('c');
        const device = await broker.client();
        const [app, ana] = [await bridge.client(`/ws/${collection}`), await bridge.client()];
        await app.take('subscribed');
        await ana.subscribe(collection, { updates: 'full' });
        const both = async () => Promise.all([app, ana].map(async (client) => {
            const { type, recordId, data, metadata } = await client.next();
            return [type, recordId, data, metadata.version];
        }));
        for (const [op, data, version] of [['insert', { a: 1 }, 1], ['delete', undefined, 2]]) {
            await device.short(collection, 'x', op, data);
            assert.deepEqual(await both(), [[op, 'x', data, version], [op, 'x', data, version]]);
        }
        for (let i = 0; i < 20; i++) { // the insert is not lost, however soon an update follows
            await Promise.all([device.short(collection, `y${i}`, 'insert', { a: 1 }), device.short(collection, `y${i}`, 'update', { b: 1 })]);
            assert.deepEqual(await both(), Array(2).fill(['insert', `y${i}`, { a: 1 }, 1]));
            await Promise.all([app.next(), ana.next()]);
        }
        assert.deepEqual([await app.rest(), await ana.rest()], [[], []]);
    });

    test(`whole updates: after \`since\` deletions are in the page, and come but once, ${how}`, async () => {
        const collection = unique('c');
        const device = await broker.client();
        await device.short(collection, 'x', 'insert', { a: 1 });
        await device.short(collection, 'x', 'delete');
        const client = await bridge.client();
        const { deleted } = await client.subscribe(collection, { updates: 'full', since: 1 });
        assert.deepEqual([...deleted.keys()], ['x']);
        await device.short(collection, 'y', 'insert', { a: 1 });
        assert.deepEqual([(await client.next()).recordId, await client.rest()], ['y', []]);
    });

    test(`whole updates: each version of a record comes, in order, however fast they follow, ${how}`, async () => {
        const collection = unique('c');
        const [one, two] = await Promise.all([broker.client(), broker.client()]);
        const [app, ana, bo] = [await bridge.client(`/ws/${collection}`), await bridge.client(), await bridge.client()];
        await app.take('subscribed');
        await ana.subscribe(collection, { updates: 'full' });
        await bo.subscribe(collection, { updates: 'full' });
        const writes = [one.short(collection, 'x', 'insert', { first: null })];
        for (let i = 0; i < 40; i++) {
            writes.push(one.short(collection, 'x', 'update', i % 10 === 9 ? { n: null } : { n: i, [`k${i % 3}`]: i }));
            writes.push(two.short(collection, `y${i}`, 'insert', { i }));
        }
        bo.send({ type: 'insert', collection, recordId: 'bo', data: { b: 1 } });
        await Promise.all(writes);
        const whole = { first: null };
        const expected = [['insert', { ...whole }, 1]];
        for (let i = 0; i < 40; i++) {
            if (i % 10 === 9) {
                delete whole.n;
            } else {
                Object.assign(whole, { n: i, [`k${i % 3}`]: i });
            }
            expected.push(['update', { ...whole }, i + 2]);
        }
        for (const [client, all] of [[app, 82], [ana, 82], [bo, 81]]) {
            const messages = [];
            while (messages.length < all) {
                messages.push(await client.next());
            }
            assert.deepEqual(messages.filter((m) => m.recordId === 'x').map((m) => [m.type, m.data, m.metadata.version]), expected);
            const seqs = messages.map((m) => m.metadata.seq);
            assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b), 'in order, none twice');
            assert.equal(messages.some((m) => m.recordId === 'bo'), client !== bo);
            assert.deepEqual(await client.rest(), []);
        }
    });

    test(`/ws/{c}: each version of a record that is back, and of one that the app has changed itself, ${how}`, async () => {
        const collection = unique('c');
        const device = await broker.client();
        const app = await bridge.client(`/ws/${collection}`);
        await app.take('subscribed');
        const ops = ['insert', 'update', 'delete', 'insert', 'update', 'update', 'delete', 'insert', 'update'];
        await Promise.all(ops.map((op, n) => device.short(collection, 'back', op, op === 'delete' ? undefined : { n })));
        for (const [i, op] of ops.entries()) {
            const { type, recordId, data, metadata } = await app.next();
            assert.deepEqual([type, recordId, data, metadata.version], [op, 'back', op === 'delete' ? undefined : { n: i }, i + 1]);
        }
        assert.deepEqual(await app.rest(), []);

        await device.short(collection, 'other', 'insert', { n: 0 });
        await device.short(collection, 'own', 'insert', { n: 0 });
        await app.write('update', collection, 'own', { mine: true });
        await device.short(collection, 'after', 'insert', {}); // comes when what is its own has been looked up
        await app.take((m) => (m.recordId ?? m.data?.records?.at(-1)?.id) === 'after');
        await app.rest();
        const writes = Array.from({ length: 6 }, (_, n) => ['own', 'other'].map((id) => device.short(collection, id, 'update', { n })));
        await Promise.all(writes.flat());
        const seen = { own: [], other: [], page: [] };
        for (let i = 0; i < 18; i++) {
            const { type, recordId, data, metadata } = await app.next();
            if (type === 'sync') { // an app takes the event for a conflict, and the page as it is
                seen.page.push(...data.records.map((r) => [r.id, r.version, r.data]));
            } else {
                seen[recordId].push([recordId, metadata.version, data]);
            }
        }
        const expected = (id, first, more) => Array.from({ length: 6 }, (_, n) => [id, first + n, { n, ...more }]);
        assert.deepEqual(seen, { own: expected('own', 3, { mine: true }), other: expected('other', 2), page: expected('own', 3, { mine: true }) });
        assert.deepEqual(await app.rest(), []);
    });

    test(`/ws/{c1},{c2},...: as many as fit into a request, ${how}`, async () => {
        const names = Array.from({ length: 150 }, () => `${unique('a-name-of-').padEnd(64, '.')}`);
        const client = await bridge.client(`/ws/${names.join(',')}`);
        assert.equal(client.refused, undefined);
        for (const collection of names) {
            await client.take({ type: 'subscribed', collection });
        }
    });

    test(`/ws/{c}: an app subscribes to a collection that is not in its path, ${how}`, async () => {
        const [a, b, c] = [unique('a'), unique('b'), unique('c')];
        const device = await broker.client();
        for (const id of ['x', 'y']) {
            await device.short(b, id, 'insert', { id, keep: true });
        }
        await device.short(b, 'y', 'delete');
        await device.short(c, 'x', 'insert', { keep: true });
        const app = await bridge.client(`/ws/${a}`);
        await app.take({ type: 'subscribed', collection: a });
        assert.deepEqual([...(await app.subscribe(b)).records.keys()], ['x']);
        assert.equal((await app.take('delete')).recordId, 'y');
        app.send({ type: 'subscribe', collection: b });
        await app.take({ type: 'subscribed', collection: b });
        assert.deepEqual(await app.rest(), []);
        await device.short(b, 'x', 'update', { n: 1 });
        const change = await app.next();
        assert.deepEqual([change.type, change.data], ['update', { id: 'x', keep: true, n: 1 }]);
        await app.subscribe(c, { updates: 'delta' });
        await device.short(c, 'x', 'update', { n: 1 });
        assert.deepEqual((await app.take('update')).data, { n: 1 });
        // at /ws nothing is guessed: a second subscribe begins anew
        const ana = await bridge.client();
        for (let i = 0; i < 2; i++) {
            assert.deepEqual([...(await ana.subscribe(b)).records.keys()], ['x']);
        }
        await device.short(b, 'x', 'update', { n: 2 });
        assert.deepEqual((await ana.take('update')).data, { n: 2 });
        assert.deepEqual(await ana.rest(), []);
    });
}
