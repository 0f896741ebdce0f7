// SPDX-License-Identifier: BSD-3-Clause
// The one write rule: versions, conflicts and their nine ways out, idempotence, clocks.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { eventBarrier, unique } from '../lib/client.mjs';
import { FORMS, matrix, needsMetadata, VERSIONS } from '../lib/matrix.mjs';

const broker = await Broker.start({
    config: {
        collections: {
            '*': {},
            upsert: { upsert: true },
            serverWins: { conflict: { strategy: 'serverWins' } },
            clientWins: { conflict: { strategy: 'clientWins' } },
            mergeArrays: { conflict: { strategy: 'mergeArrays', fields: ['tags', 'more'] } },
            sumNumbers: { conflict: { strategy: 'sumNumbers', fields: ['n', 'm'] } },
            maxValue: { conflict: { strategy: 'maxValue', fields: ['n', 'm', 's'] } },
            mergeFields: { conflict: { strategy: 'mergeFields', fields: ['mine', 'gone'] } },
            fieldLevel: { conflict: { strategy: 'fieldLevelLastWriteWins' } },
            deepMerge: { conflict: { strategy: 'deepMerge' } },
        },
    },
});
after(() => broker.stop());

const ago = (ms) => new Date(Date.now() - ms).toISOString();

/** A writer, a reader of the collection's events, and a record id of the test's own. */
async function stage(collection = unique('c'), options = {}) {
    const writer = await broker.client({ version: 5, ...options });
    const reader = await broker.client({ version: 5 });
    const recordId = unique('r');
    await reader.subscribe(`sync/${collection}/evt/+`);
    const write = (type, data, { timestamp, ...metadata } = {}, from = writer) =>
        from.write('long', {
            type,
            collection,
            recordId,
            data,
            timestamp,
            ...(Object.keys(metadata).length && { metadata }),
        });
    const record = () => writer.read(collection, recordId);
    /** The events of this record since the last call; every one that a write made before the call causes. */
    const events = async () => {
        await eventBarrier(writer, collection, reader);
        return reader.events
            .splice(0)
            .map((m) => m.json)
            .filter((m) => m.recordId === recordId);
    };
    return { writer, reader, collection, recordId, write, record, events };
}

const summary = ({ type, data, metadata }) => [type, metadata.version, data];

matrix('versions count on across delete and re-insert', { forms: FORMS }, async ({ version, qos, form }) => {
    const { writer, collection, recordId, record, events } = await stage(undefined, { version, qos });
    const write = (type, data) => writer.write(form, { type, collection, recordId, data });
    await write('insert', { a: 1 });
    await write('update', { a: 2 });
    await write('delete');
    await write('insert', { a: 3 });
    await write('delete');
    await write('insert', { b: 4 });
    assert.deepEqual((await events()).map(summary), [
        ['insert', 1, { a: 1 }],
        ['update', 2, { a: 2 }],
        ['delete', 3, undefined],
        ['insert', 4, { a: 3 }],
        ['delete', 5, undefined],
        ['insert', 6, { b: 4 }],
    ]);
    const { version: last, data } = await record();
    assert.deepEqual([last, data], [6, { b: 4 }]);
    await writer.noAnswers(collection);
});

matrix('an update changes what it names, null removes', { forms: FORMS }, async ({ version, qos, form }) => {
    const { writer, collection, recordId, record, events } = await stage(undefined, { version, qos });
    const write = (type, data) => writer.write(form, { type, collection, recordId, data });
    await write('insert', { a: 1, b: { x: 1, y: null }, c: null, d: [1] });
    await write('update', { a: null, b: { z: 1 }, e: 'new', none: null });
    assert.deepEqual((await record()).data, { b: { z: 1 }, c: null, d: [1], e: 'new' });
    await write('update', {});
    assert.deepEqual((await events()).map(summary).slice(0, 2), [
        ['insert', 1, { a: 1, b: { x: 1, y: null }, c: null, d: [1] }],
        ['update', 2, { a: null, b: { z: 1 }, e: 'new', none: null }],
    ]);
});

matrix(
    'an insert over an existing record writes all of it and is told as an update',
    { forms: FORMS },
    async ({ version, qos, form }) => {
        const { writer, collection, recordId, record, events } = await stage(undefined, { version, qos });
        const write = (type, data) => writer.write(form, { type, collection, recordId, data });
        await write('insert', { a: 1, b: 2, c: { x: 1 } });
        await write('insert', { c: { x: 1 }, a: 5, n: null });
        assert.deepEqual((await events()).map(summary).slice(1), [
            ['update', 2, { c: { x: 1 }, a: 5, n: null, b: null }],
        ]);
        assert.deepEqual((await record()).data, { c: { x: 1 }, a: 5, n: null });
    },
);

test('seq rises over all records of a collection, for each collection by itself', async () => {
    const a = await stage();
    for (let i = 0; i < 20; i++) {
        await a.writer.short(a.collection, `r${i % 3}`, 'insert', { i });
    }
    await eventBarrier(a.writer, a.collection, a.reader);
    const seqs = a.reader.events.map((m) => m.json.metadata.seq);
    assert.equal(seqs.length, 20);
    seqs.reduce((last, seq) => (assert.ok(seq > last, `${seqs}`), seq), 0);
});

for (const [collection, upserts] of [
    [undefined, false],
    ['upsert', true],
]) {
    test(`update of nothing ${upserts ? 'inserts with upsert' : 'is RECORD_NOT_FOUND'}, delete of nothing always is`, async () => {
        for (const version of VERSIONS) {
            const s = await stage(collection, { version });
            await s.write('delete');
            assert.equal((await s.writer.answer()).code, 'RECORD_NOT_FOUND');
            await s.write('update', { a: 1, b: null });
            if (!upserts) {
                assert.equal((await s.writer.answer()).code, 'RECORD_NOT_FOUND');
                assert.equal(await s.record(), undefined);
                await s.write('insert', { a: 1 });
            }
            assert.deepEqual((await s.record()).data, { a: 1 });
            await s.write('delete');
            await s.write('delete', undefined, { mutationId: 'again' });
            assert.equal((await s.writer.answer()).code, 'RECORD_NOT_FOUND');
            await s.write('update', { c: 1 });
            if (!upserts) {
                assert.equal((await s.writer.answer()).code, 'RECORD_NOT_FOUND');
            }
            assert.deepEqual(
                (await s.events()).map((e) => [e.type, e.metadata.version]),
                [['insert', 1], ['delete', 2], ...(upserts ? [['insert', 3]] : [])],
            );
            await s.writer.noAnswers(s.collection);
        }
    });
}

matrix('ifVersion is strict', { forms: FORMS, skip: needsMetadata, qos: [0, 1, 2] }, async ({ version, qos, form }) => {
    const s = await stage(undefined, { version, qos });
    const { writer, collection, recordId } = s;
    const write = (type, data, metadata) => writer.write(form, { type, collection, recordId, data, metadata });
    const refusal = async (expected) => {
        const error = await writer.answer();
        assert.deepEqual(
            [error.type, error.code, error.metadata.version, error.metadata.recordId],
            ['error', 'CONFLICT', expected, recordId],
        );
    };
    await write('insert', { a: 1 }, { ifVersion: 3 });
    await refusal(0);
    await write('insert', { a: 1 }, { ifVersion: 0 });
    await write('insert', { a: 2 }, { ifVersion: 0 });
    await refusal(1);
    await write('update', { a: 3 }, { ifVersion: 2, mutationId: 'm' });
    await refusal(1);
    await write('update', { a: 4 }, { ifVersion: 1, mutationId: 'm' });
    assert.equal((await writer.answer('ack')).metadata.version, 2);
    await write('delete', undefined, { ifVersion: 1 });
    await refusal(2);
    await write('delete', undefined, { ifVersion: 2 });
    await write('insert', { a: 5 }, { ifVersion: 0 });
    assert.deepEqual((await s.events()).map(summary), [
        ['insert', 1, { a: 1 }],
        ['update', 2, { a: 4 }],
        ['delete', 3, undefined],
        ['insert', 4, { a: 5 }],
    ]);
    await writer.noAnswers(collection);
});

matrix(
    'lastWriteWins: an older write loses and is told the winner',
    { forms: FORMS, skip: needsMetadata },
    async ({ version, qos, form }) => {
        const s = await stage(undefined, { version, qos });
        const { writer, collection, recordId } = s;
        const write = (type, data, timestamp, metadata) =>
            writer.write(form, { type, collection, recordId, data, timestamp, metadata });
        const updatedAt = ago(60_000);
        await write('insert', { a: 1, b: 1 }, updatedAt);
        for (const [type, data] of [
            ['update', { a: 2 }],
            ['insert', { z: 1 }],
            ['delete', undefined],
        ]) {
            await write(type, data, ago(120_000));
            const winner = await writer.answerPacket();
            assert.equal(winner.topic, `sync/${collection}/re/${writer.clientId}`);
            assert.deepEqual(summary(winner.json), ['update', 1, { a: 1, b: 1 }], type);
            assert.equal(winner.json.metadata.conflict, true);
            assert.equal(winner.json.timestamp, updatedAt);
            assert.deepEqual([winner.json.collection, winner.json.recordId], [collection, recordId]);
        }
        // Dealt with, so acknowledged; after the winner, with the version that stands.
        await write('update', { a: 3 }, ago(130_000), { mutationId: 'late' });
        assert.deepEqual(summary(await writer.answer()), ['update', 1, { a: 1, b: 1 }]);
        const ack = await writer.answer();
        assert.deepEqual(
            [ack.type, ack.metadata.version, ack.metadata.mutationId, ack.metadata.conflict],
            ['ack', 1, 'late', true],
        );
        assert.deepEqual((await s.events()).map(summary), [['insert', 1, { a: 1, b: 1 }]]);
        assert.equal((await s.record()).version, 1);
        await writer.noAnswers(collection);
    },
);

test('lastWriteWins: a stale baseVersion with a newer time wins, with an older one loses', async () => {
    const s = await stage();
    await s.write('insert', { a: 1 }, { timestamp: ago(60_000) });
    await s.write('update', { a: 2 }, { timestamp: ago(50_000) });
    await s.write('update', { b: 1 }, { timestamp: ago(40_000), baseVersion: 1, mutationId: 'm' });
    assert.equal((await s.writer.answer('ack')).metadata.version, 3);
    await s.write('update', { b: 2 }, { timestamp: ago(45_000), baseVersion: 2 });
    const winner = await s.writer.answer('update');
    assert.deepEqual(summary(winner), ['update', 3, { a: 2, b: 1 }]);
    // The right baseVersion is no conflict, whatever the time; updatedAt does not go back.
    const { updatedAt } = await s.record();
    await s.write('update', { b: 3 }, { timestamp: ago(90_000), baseVersion: 3, mutationId: 'm4' });
    assert.equal((await s.writer.answer('ack')).metadata.version, 4);
    const after4 = await s.record();
    assert.deepEqual(after4.data, { a: 2, b: 3 });
    assert.ok(after4.updatedAt >= updatedAt, `${after4.updatedAt} < ${updatedAt}`);
    assert.deepEqual(
        (await s.events()).map((e) => e.metadata.version),
        [1, 2, 3, 4],
    );
});

test('a write older than the deletion loses against it and is told so', async () => {
    const s = await stage();
    await s.write('insert', { a: 1 }, { timestamp: ago(60_000) });
    await s.write('delete', undefined, { timestamp: ago(50_000) });
    await s.write('insert', { a: 2 }, { timestamp: ago(55_000) });
    const told = await s.writer.answer();
    assert.deepEqual([told.type, told.metadata.version, told.metadata.conflict], ['delete', 2, true]);
    await s.write('insert', { a: 2 }, { timestamp: ago(40_000), baseVersion: 1 });
    assert.deepEqual(
        (await s.events()).map((e) => [e.type, e.metadata.version]),
        [
            ['insert', 1],
            ['delete', 2],
            ['insert', 3],
        ],
    );
});

/**
 * What a conflicting update makes of a stored record: [merged data, event data] or null when it loses; the sender is
 * told either way.
 */
async function conflict(collection, stored, local, { type = 'update', at = 30_000 } = {}) {
    const s = await stage(collection);
    await s.write('insert', { first: true }, { timestamp: ago(70_000) });
    await s.write('insert', stored, { timestamp: ago(60_000) });
    await s.events();
    await s.write(type, local, { timestamp: ago(at), baseVersion: 1, mutationId: 'm' });
    const ack = await s.writer.answer('ack');
    const told = s.writer.answers.map((m) => m.json);
    const record = await s.record();
    const events = await s.events();
    assert.equal(record.version, ack.metadata.version);
    assert.equal(events.length, ack.metadata.version === 3 ? 1 : 0);
    return { record, event: events[0], told, ack };
}

function merged(result, expected) {
    assert.equal(result.record.version, 3);
    assert.deepEqual(result.record.data, expected);
    assert.equal(result.event.type, 'update');
    assert.equal(result.event.metadata.version, 3);
    assert.equal(result.told.length, 1, 'a sender whose picture is wrong is told the result');
    assert.deepEqual(summary(result.told[0]), ['update', 3, expected]);
    assert.equal(result.told[0].metadata.conflict, true);
}

function lost(result, expected) {
    assert.equal(result.record.version, 2);
    assert.deepEqual(result.record.data, expected);
    assert.equal(result.told.length, 1);
    assert.deepEqual(summary(result.told[0]), ['update', 2, expected]);
    assert.equal(result.told[0].metadata.conflict, true);
}

test('serverWins', async () => {
    lost(await conflict('serverWins', { a: 1 }, { a: 2 }), { a: 1 });
});

test('clientWins', async () => {
    const result = await conflict('clientWins', { a: 1, b: 1 }, { a: 2 }, { at: 80_000 });
    assert.equal(result.record.version, 3);
    assert.deepEqual(result.record.data, { a: 2, b: 1 });
    assert.deepEqual(result.event.data, { a: 2 });
    assert.ok(
        Date.parse(result.record.updatedAt) > Date.now() - 65_000,
        `updatedAt went back to ${result.record.updatedAt}`,
    );
});

test('mergeArrays', async () => {
    const result = await conflict(
        'mergeArrays',
        { tags: ['a', 'b', 1.0], title: 'stored', more: 'x' },
        { tags: ['b', 'c', 1], title: 'late', more: ['y'] },
    );
    merged(result, { tags: ['b', 'c', 1, 'a'], title: 'stored', more: 'x' });
    assert.deepEqual(result.event.data, { tags: ['b', 'c', 1, 'a'] });
});

test('sumNumbers, exactly', async () => {
    const s = await stage('sumNumbers');
    const { writer, collection, recordId } = s;
    const write = (type, data, timestamp, metadata) =>
        writer.write('long', { type, collection, recordId, data, timestamp, metadata });
    await write('insert', '{"n":1}', ago(70_000));
    await write('insert', '{"n":0.1,"m":123456789012345678901234567890,"t":"stored"}', ago(60_000));
    await write('update', '{"n":0.2,"m":1,"t":"late"}', ago(30_000), { baseVersion: 1 });
    const told = await writer.answerPacket('update');
    assert.match(told.text, /"data":\{"n":0\.3,"m":123456789012345678901234567891,"t":"stored"\}/);
    assert.equal(told.json.metadata.conflict, true);
    const event = (await s.events()).at(-1);
    assert.deepEqual(Object.keys(event.data), ['n', 'm']);
});

test('maxValue', async () => {
    const result = await conflict('maxValue', { n: 5, m: 7, s: 'a', t: 1 }, { n: 6, m: 2, t: 2 });
    merged(result, { n: 6, m: 7, s: 'a', t: 1 });
    assert.deepEqual(result.event.data, { n: 6 });
});

test('mergeFields', async () => {
    const result = await conflict('mergeFields', { mine: 1, yours: 1, gone: 1 }, { mine: 2, yours: 2 });
    merged(result, { mine: 2, yours: 1, gone: 1 });
    assert.deepEqual(result.event.data, { mine: 2 });
});

test('fieldLevelLastWriteWins', async () => {
    const t = (n) => `2026-01-01T00:00:0${n}.000Z`;
    const result = await conflict(
        'fieldLevel',
        { a: 1, a_updatedAt: t(1), b: 1, b_updatedAt: t(5) },
        { a: 2, a_updatedAt: t(2), b: 2, b_updatedAt: t(3) },
    );
    merged(result, { a: 2, a_updatedAt: t(2), b: 1, b_updatedAt: t(5) });
});

test('deepMerge', async () => {
    const result = await conflict(
        'deepMerge',
        { a: { x: 1, deep: { p: 1 } }, list: [1, 2], s: 'stored' },
        { a: { x: 2, y: 2, deep: { q: 2 } }, list: [2, 3], s: 'late', extra: true },
    );
    assert.equal(result.record.version, 3);
    const { list, ...rest } = result.record.data;
    assert.deepEqual(rest, { a: { x: 1, deep: { p: 1, q: 2 }, y: 2 }, s: 'stored', extra: true });
    assert.deepEqual([...list].sort(), [1, 2, 3]);
    merged(result, result.record.data);
});

test('a merge that changes nothing is a lost write', async () => {
    lost(await conflict('maxValue', { n: 5 }, { n: 4 }), { n: 5 });
    lost(await conflict('mergeArrays', { tags: ['a', 'b'] }, { other: 1 }), { tags: ['a', 'b'] });
});

test('merging strategies have nothing to merge with a deletion: the later one wins', async () => {
    for (const collection of ['mergeArrays', 'sumNumbers', 'deepMerge']) {
        const s = await stage(collection);
        await s.write('insert', { n: 1, tags: [] }, { timestamp: ago(60_000) });
        await s.write('delete', undefined, { timestamp: ago(70_000) });
        assert.deepEqual(summary(await s.writer.answer()), ['update', 1, { n: 1, tags: [] }], collection);
        await s.write('delete', undefined, { timestamp: ago(50_000), baseVersion: 9 });
        assert.deepEqual(
            (await s.events()).map((e) => [e.type, e.metadata.version]),
            [
                ['insert', 1],
                ['delete', 2],
            ],
        );
    }
});

// --- idempotence
// -------------------------------------------------------------------------------------------------------------

matrix(
    'the same mutationId again changes nothing and is acknowledged again',
    { forms: FORMS, skip: needsMetadata },
    async ({ version, qos, form }) => {
        const s = await stage(undefined, { version, qos });
        const { writer, collection, recordId } = s;
        const writes = [
            ['insert', { a: 1 }, 'm1'],
            ['update', { a: 2 }, 'm2'],
            ['delete', undefined, 'm3'],
            ['insert', { a: 4 }, 'm4'],
        ];
        const send = ([type, data, mutationId], from = writer) =>
            from.write(form, { type, collection, recordId, data, metadata: { mutationId } });
        const acks = [];
        for (const write of writes) {
            await send(write);
            acks.push(await writer.answer('ack'));
        }
        const before = await s.record();
        const other = await broker.client({ version, qos });
        for (const from of [writer, other]) {
            for (const [i, write] of writes.entries()) {
                await send(write, from);
                assert.deepEqual(await from.answer(), acks[i], `mutation ${i + 1} again`);
            }
            await from.noAnswers(collection);
        }
        assert.deepEqual(await s.record(), before);
        assert.deepEqual((await s.events()).map(summary), [
            ['insert', 1, { a: 1 }],
            ['update', 2, { a: 2 }],
            ['delete', 3, undefined],
            ['insert', 4, { a: 4 }],
        ]);
    },
);

matrix(
    'without a mutationId: same type, time, user and data as the last change',
    { forms: FORMS, skip: needsMetadata },
    async ({ version, qos, form }) => {
        const s = await stage(undefined, { version, qos });
        const { writer, collection, recordId } = s;
        const timestamp = ago(20_000);
        const send = (type, data, at, from = writer) =>
            from.write(form, { type, collection, recordId, data, timestamp: at });
        await send('insert', { a: 1, b: 'x' }, timestamp);
        await send('insert', { a: 1, b: 'x' }, timestamp);
        await send('update', { a: 2 }, ago(10_000));
        const last = ago(5_000);
        await send('update', { a: 3 }, last);
        await send('update', { a: 3 }, last);
        await send('update', { a: 3 }, last, await broker.client({ version, qos }));
        assert.deepEqual((await s.events()).map(summary), [
            ['insert', 1, { a: 1, b: 'x' }],
            ['update', 2, { a: 2 }],
            ['update', 3, { a: 3 }],
        ]);
        // Another user's is another write.
        await send('update', { a: 3 }, last, await broker.client({ version, qos, username: 'somebody' }));
        assert.deepEqual(
            (await s.events()).map((e) => [e.metadata.version, e.metadata.userId]),
            [[4, 'somebody']],
        );
        await writer.noAnswers(collection);
    },
);

matrix('the same reading twice, without a time, is two writes', { forms: FORMS }, async ({ version, qos, form }) => {
    const s = await stage(undefined, { version, qos });
    const { writer, collection, recordId } = s;
    for (let i = 0; i < 3; i++) {
        await writer.write(form, { type: 'insert', collection, recordId, data: { t: 21 } });
    }
    assert.deepEqual(
        (await s.events()).map((e) => [e.type, e.metadata.version]),
        [
            ['insert', 1],
            ['update', 2],
            ['update', 3],
        ],
    );
});

test('the second copy that an app sends by HTTP, with a time a little off, is the same change', async () => {
    const s = await stage(undefined, { username: 'ana' });
    const ben = await broker.client({ version: 5, username: 'ben' });
    const base = Date.now() - 20_000;
    const at = (ms) => new Date(base + ms).toISOString();
    await s.write('insert', { title: 'milk', done: false }, { timestamp: at(0) });
    await s.write('insert', { title: 'milk', done: false }, { timestamp: at(1500) });
    await s.write('update', { done: true }, { timestamp: at(5000), mutationId: 'app-1' });
    await s.writer.answer('ack');
    await s.write('update', { title: 'oat milk' }, { timestamp: at(6000) }, ben);
    // Others have changed the record in between: their change stays. Neither a mutationId nor baseVersion is needed to
    // see it.
    await s.write('update', { done: true }, { timestamp: at(4000) });
    await s.write('insert', { title: 'milk', done: false }, { timestamp: at(-1999) });
    assert.deepEqual(
        (await s.events()).map((e) => [e.type, e.metadata.version]),
        [
            ['insert', 1],
            ['update', 2],
            ['update', 3],
        ],
    );
    assert.deepEqual((await s.record()).data, { title: 'oat milk', done: true });
    await s.writer.noAnswers(s.collection);

    // More than 2 s off, of another user, or of other data: another change.
    await s.write('update', { done: true }, { timestamp: at(7001) });
    await s.write('update', { done: true }, { timestamp: at(7001) }, ben);
    await s.write('update', { done: false }, { timestamp: at(7500) });
    assert.deepEqual(
        (await s.events()).map((e) => [e.metadata.version, e.metadata.userId]),
        [
            [4, 'ana'],
            [5, 'ben'],
            [6, 'ana'],
        ],
    );
});

test('an ifVersion that holds is carried out, however near an earlier change with the same data was', async () => {
    for (const form of ['long', 'short']) {
        const s = await stage();
        const base = Date.now() - 20_000;
        for (const [i, on] of [true, false, true, false].entries()) {
            const timestamp = new Date(base + i * 500).toISOString();
            const address = { collection: s.collection, recordId: s.recordId };
            const message = { type: i ? 'update' : 'insert', ...address, data: { on }, timestamp };
            await s.writer.write(form, { ...message, metadata: { ifVersion: i } });
        }
        assert.deepEqual(
            (await s.events()).map((e) => [e.metadata.version, e.data.on]),
            [
                [1, true],
                [2, false],
                [3, true],
                [4, false],
            ],
        );
        await s.writer.noAnswers(s.collection);
    }
});

test('another mutationId is another change, however near', async () => {
    const s = await stage();
    const timestamp = ago(10_000);
    await s.write('insert', { a: 1 }, { timestamp, mutationId: 'm1' });
    await s.write('update', { a: 2 }, { timestamp, mutationId: 'm2' });
    await s.write('update', { a: 2 }, { timestamp, mutationId: 'm3' });
    assert.deepEqual(
        [1, 2, 3],
        [
            (await s.writer.answer('ack')).metadata.version,
            (await s.writer.answer('ack')).metadata.version,
            (await s.writer.answer('ack')).metadata.version,
        ],
    );
});

// MQTT redelivery: the same PUBLISH again after the connection was lost before its acknowledgement.

const REDELIVERED = {
    'bare data': { payload: '{"a":1}', short: true },
    'a time': { payload: `{"type":"insert","recordId":"r","data":{"a":1},"timestamp":"${ago(30_000)}"}` },
    'no time': { payload: '{"type":"insert","recordId":"r","data":{"a":1}}' },
    'a mutationId': {
        payload: '{"type":"insert","recordId":"r","data":{"a":1},"metadata":{"mutationId":"m"}}',
        acks: true,
    },
};

for (const version of VERSIONS) {
    for (const qos of [1, 2]) {
        for (const [what, { payload, short, acks }] of Object.entries(REDELIVERED)) {
            // The event of a subscriber's QoS 2 command of MQTT 5 waits in the broker for its PUBREL; others do not.
            for (const subscribed of qos === 2 && version === 5 ? [false, true] : [false]) {
                const who = `MQTT ${version}${subscribed ? ', a subscriber' : ''}`;
                test(`a QoS ${qos} PUBLISH with ${what} redelivered after reconnecting is one change [${who}]`, async () => {
                    const collection = unique('c');
                    const reader = await broker.client({ version: 5 });
                    await reader.subscribe(`sync/${collection}/evt/#`);
                    const topic = short ? `sync/${collection}/cmd/r/insert` : `sync/${collection}/cmd`;
                    const raw = broker.raw({ version, clientId: unique('raw') });
                    await raw.connect({ clean: false });
                    if (subscribed) await raw.subscribe('something/else');
                    const acknowledged = qos === 1 ? 'puback' : 'pubrec';
                    raw.publish(topic, payload, { qos, id: 7 });
                    await raw.next(acknowledged, (p) => p.id === 7); // that this was lost, only the device knows
                    raw.destroy();
                    await raw.waitClosed();

                    const connack = await raw.connect({ clean: false });
                    assert.equal(connack.sessionPresent, true);
                    raw.publish(topic, payload, { qos, id: 7, dup: true });
                    await raw.next(acknowledged, (p) => p.id === 7);
                    if (qos === 2) {
                        raw.pubrel(7);
                        await raw.next('pubcomp', (p) => p.id === 7);
                    }
                    if (acks) {
                        // The redelivered one is acknowledged as the first was, on this connection.
                        const ack = JSON.parse((await raw.next('publish', (p) => p.payload.includes('"ack"'))).payload);
                        assert.deepEqual([ack.metadata.mutationId, ack.metadata.version], ['m', 1]);
                    }
                    const writer = await broker.client({ version: 5 });
                    await eventBarrier(writer, collection, reader);
                    assert.deepEqual(
                        reader.events.map((m) => [m.json.recordId, m.json.type, m.json.metadata.version]),
                        [['r', 'insert', 1]],
                    );
                    assert.equal((await writer.read(collection, 'r')).version, 1);
                    // The next reading of the same device is a new one.
                    raw.publish(topic, short ? '{"a":2}' : '{"type":"insert","recordId":"r","data":{"a":2}}', {
                        qos,
                        id: 8,
                    });
                    await raw.next(acknowledged, (p) => p.id === 8);
                    if (qos === 2) {
                        raw.pubrel(8);
                        await raw.next('pubcomp', (p) => p.id === 8);
                    }
                    assert.equal((await writer.read(collection, 'r')).version, 2);
                    raw.destroy();
                });
            }
        }
    }

    // An event that waits for PUBREL would come after younger ones. A subscriber of MQTT 5 may have asked for No Local,
    // which only the rewritten PUBLISH honours: there, and only there, the broker's order stands.
    for (const subscribed of [false, true]) {
        const who = `MQTT ${version}${subscribed ? ', a subscriber' : ''}`;
        test(`a QoS 2 write whose PUBREL comes late is told once [${who}]`, async () => {
            const atOnce = version === 4 || !subscribed;
            const collection = unique('c');
            const reader = await broker.client({ version: 5 });
            await reader.subscribe(`sync/${collection}/evt/#`, { qos: 0 });
            const raw = broker.raw({ version, clientId: unique('raw') });
            await raw.connect();
            if (subscribed) await raw.subscribe('something/else');
            raw.publish(`sync/${collection}/cmd/r/insert`, '{"a":1}', { qos: 2, id: 1 });
            await raw.next('pubrec');
            const writer = await broker.client({ version: 5 });
            await writer.short(collection, 'r', 'update', { b: 2 });
            raw.publish(`sync/${collection}/cmd/r/update`, '{"c":3}', { qos: 0 });
            await raw.ping();
            await eventBarrier(writer, collection, reader);
            const versions = () => reader.events.filter((m) => m.json.recordId === 'r').map((m) => m.json.metadata.version);
            assert.deepEqual(versions(), atOnce ? [1, 2, 3] : [2, 3]);
            raw.pubrel(1);
            await raw.next('pubcomp');
            await eventBarrier(writer, collection, reader);
            assert.deepEqual(versions(), atOnce ? [1, 2, 3] : [2, 3, 1]);
            raw.destroy();
        });
    }
}

// --- clocks
// ------------------------------------------------------------------------------------------------------------------

for (const [what, timestamp] of [
    ['no time', undefined],
    ['a time without a zone', '2020-01-01T00:00:00'],
    ['a time without a zone, with a decimal comma', '2020-01-01 00:00:00,123'],
    ["a time without a zone in ISO 8601's basic form", '20200101T000000'],
    ['a time to come', '2099-01-01T00:00:00Z'],
    ['a time to come in another zone', '2099-01-01T00:00:00+14:00'],
]) {
    test(`${what} counts as the moment of arrival, and locks nothing`, async () => {
        const s = await stage();
        const near = (time) => assert.ok(Math.abs(Date.parse(time) - Date.now()) < 20_000, time);
        await s.write('insert', { a: 1 }, { timestamp });
        near((await s.record()).updatedAt);
        await s.write('update', { a: 2 }, { timestamp: new Date().toISOString() });
        await s.write('update', { a: 3 });
        await s.write('update', { a: 4 }, { timestamp });
        const [first, , , last] = await s.events();
        near(first.timestamp);
        near(last.timestamp);
        const record = await s.record();
        assert.deepEqual([record.version, record.data], [4, { a: 4 }]);
        near(record.updatedAt);
        await s.writer.noAnswers(s.collection);
    });
}

test('any RFC 3339 time is understood, and told in UTC with milliseconds', async () => {
    for (const [timestamp, utc] of [
        ['2026-01-02T03:04:05Z', '2026-01-02T03:04:05.000Z'],
        ['2026-01-02T03:04:05.6789Z', '2026-01-02T03:04:05.678Z'],
        ['2026-01-02t03:04:05.1z', '2026-01-02T03:04:05.100Z'],
        ['2026-01-02 03:04:05+05:30', '2026-01-01T21:34:05.000Z'],
        ['2026-01-01T20:00:00.000-08:00', '2026-01-02T04:00:00.000Z'],
        ['2024-02-29T23:59:59.999+00:00', '2024-02-29T23:59:59.999Z'],
        ['2026-01-02T03:04:05+0530', '2026-01-01T21:34:05.000Z'], // strftime's %z: ISO 8601, not RFC 3339
    ]) {
        const s = await stage();
        await s.write('insert', { a: 1 }, { timestamp });
        assert.equal((await s.record()).updatedAt, utc, timestamp);
        assert.equal((await s.events())[0].timestamp, utc);
    }
});

test('equal times: the later arrival wins', async () => {
    const s = await stage();
    const timestamp = ago(10_000);
    await s.write('insert', { a: 1 }, { timestamp });
    await s.write('update', { a: 2 }, { timestamp });
    await s.write('update', { a: 3 }, { timestamp });
    assert.deepEqual((await s.events()).map(summary), [
        ['insert', 1, { a: 1 }],
        ['update', 2, { a: 2 }],
        ['update', 3, { a: 3 }],
    ]);
    assert.equal((await s.record()).updatedAt, timestamp);
});

test('a client whose clock is late cannot undo what others wrote since', async () => {
    const s = await stage();
    await s.write('insert', { a: 1 }, { timestamp: ago(86_400_000) });
    await s.write('update', { a: 2 });
    for (const [type, data] of [
        ['update', { a: 0 }],
        ['insert', { a: 0 }],
        ['delete', undefined],
    ]) {
        await s.write(type, data, { timestamp: ago(3_600_000) });
        assert.deepEqual(summary(await s.writer.answer()), ['update', 2, { a: 2 }]);
    }
    assert.deepEqual((await s.record()).data, { a: 2 });
});
