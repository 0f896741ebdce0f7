// SPDX-License-Identifier: BSD-3-Clause
// Every message of the protocol and its answer, as MQTT 3.1.1 and 5, at each QoS, in both forms.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { eventBarrier, unique } from '../lib/client.mjs';
import { FORMS, matrix, needsMetadata, VERSIONS } from '../lib/matrix.mjs';
import { TIME } from '../lib/shape.mjs';

const broker = await Broker.start({
    config: { collections: { '*': {}, up: { upsert: true } }, trustedUsers: ['gateway'] },
});
after(() => broker.stop());

const refused = (reasonCode, { version, qos }) =>
    assert.ok(version === 5 && qos > 0 ? reasonCode >= 0x80 : reasonCode < 0x80, `reason code ${reasonCode}`);
const accepted = (reasonCode) => assert.ok(reasonCode < 0x80, `reason code ${reasonCode}`);

matrix(
    'insert, update and delete are events for others and silent for the writer',
    { forms: FORMS },
    async ({ version, qos, form }) => {
        const collection = unique('c');
        const writer = await broker.client({ version, qos });
        const reader = await broker.client({ version });
        await reader.subscribe(`sync/${collection}/evt/#`);
        const before = Date.now();
        accepted(await writer.write(form, { type: 'insert', collection, recordId: 'r1', data: { a: 1, b: 'x' } }));
        accepted(await writer.write(form, { type: 'update', collection, recordId: 'r1', data: { b: 'y' } }));
        accepted(await writer.write(form, { type: 'delete', collection, recordId: 'r1' }));

        const insert = await reader.eventPacket();
        assert.equal(insert.topic, `sync/${collection}/evt/r1`);
        assert.equal(insert.qos, qos, 'the event goes out at the QoS of the command');
        assert.equal(insert.retain, false);
        const { type, data, timestamp, recordId, metadata } = insert.json;
        assert.deepEqual(
            { type, recordId, collection: insert.json.collection, data },
            { type: 'insert', recordId: 'r1', collection, data: { a: 1, b: 'x' } },
        );
        assert.match(timestamp, TIME);
        assert.ok(Math.abs(Date.parse(timestamp) - before) < 60_000, `timestamp ${timestamp}`);
        assert.equal(metadata.version, 1);
        assert.equal(metadata.userId, null);
        assert.equal(metadata.mutationId, undefined);

        const update = await reader.event();
        assert.deepEqual([update.type, update.metadata.version, update.data], ['update', 2, { b: 'y' }]);
        assert.ok(update.metadata.seq > metadata.seq);
        const gone = await reader.event();
        assert.deepEqual([gone.type, gone.metadata.version, gone.data], ['delete', 3, undefined]);
        assert.ok(gone.metadata.seq > update.metadata.seq);
        await writer.noAnswers(collection);
        assert.deepEqual(reader.events, []);
    },
);

matrix(
    'a mutationId is acknowledged with version and seq',
    { forms: FORMS, skip: needsMetadata },
    async ({ version, qos, form }) => {
        const collection = unique('c');
        const writer = await broker.client({ version, qos });
        const reader = await broker.client({ version });
        await reader.subscribe(`sync/${collection}/evt/+`);
        let expected = 0;
        for (const [type, data] of [
            ['insert', { n: 1 }],
            ['update', { n: 2 }],
            ['delete', undefined],
        ]) {
            const mutationId = unique('m');
            await writer.write(form, { type, collection, recordId: 'r', data, metadata: { mutationId } });
            const ack = await writer.answerPacket('ack');
            const event = await reader.event({ type });
            assert.equal(ack.topic, `sync/${collection}/re/${writer.clientId}`);
            assert.equal(ack.qos, qos, 'answers go out at the QoS of the command');
            assert.deepEqual(ack.json, {
                type: 'ack',
                collection,
                recordId: 'r',
                metadata: { mutationId, version: ++expected, seq: event.metadata.seq },
            });
            assert.equal(event.metadata.mutationId, mutationId);
            assert.equal(event.metadata.version, expected);
        }
        await writer.noAnswers(collection);
    },
);

matrix('subscribe, sync, unsubscribe, ping and auth are answered', {}, async ({ version, qos }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    await client.cmd(collection, {
        type: 'insert',
        collection,
        recordId: 'r1',
        data: { a: 1 },
        timestamp: '2026-01-02T03:04:05.678Z',
    });

    await client.cmd(collection, { type: 'subscribe', collection });
    const subscribed = await client.answerPacket();
    assert.equal(subscribed.topic, `sync/${collection}/re/${client.clientId}`);
    assert.equal(subscribed.qos, qos);
    assert.equal(subscribed.json.type, 'subscribed');
    assert.equal(subscribed.json.collection, collection);
    assert.equal(subscribed.json.metadata.recordCount, 1);
    const page = await client.answer('sync');
    assert.deepEqual(page.data.records, [
        { id: 'r1', data: { a: 1 }, version: 1, updatedAt: '2026-01-02T03:04:05.678Z' },
    ]);
    assert.equal(page.collection, collection);
    assert.deepEqual([page.metadata.full, page.metadata.more, page.metadata.total], [true, false, 1]);
    assert.equal(page.metadata.seq, subscribed.json.metadata.seq);
    assert.equal(page.metadata.epoch, subscribed.json.metadata.epoch);

    await client.cmd(collection, { type: 'sync', collection });
    assert.deepEqual((await client.answer()).data.records, page.data.records);
    await client.cmd(collection, { type: 'unsubscribe', collection });
    const unsubscribed = await client.answer();
    assert.deepEqual([unsubscribed.type, unsubscribed.collection], ['unsubscribed', collection]);
    await client.cmd(collection, { type: 'ping' });
    assert.equal((await client.answer()).type, 'pong');
    await client.cmd(collection, { type: 'auth', token: 'whatever' });
    assert.equal((await client.answer()).type, 'authenticated');
    await client.noAnswers(collection);
});

for (const version of VERSIONS) {
    test(`the collection may be left out, and must be the topic's otherwise [MQTT ${version}]`, async () => {
        const collection = unique('c');
        const client = await broker.client({ version });
        accepted(
            await client.cmd(collection, {
                type: 'insert',
                recordId: 'r',
                data: { a: 1 },
                metadata: { mutationId: 'm1' },
            }),
        );
        assert.equal((await client.answer('ack')).collection, collection);
        await client.cmd(collection, { type: 'subscribe' });
        assert.equal((await client.answer('subscribed')).collection, collection);
        await client.answer('sync');
        const other = unique('c');
        for (const message of [{ type: 'insert', recordId: 'r', data: {} }, { type: 'sync' }, { type: 'subscribe' }]) {
            refused(await client.cmd(collection, { ...message, collection: other }), { version, qos: 1 });
            assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
        }
        assert.equal((await client.sync(other)).records.size, 0);
    });

    test(`unknown fields are ignored and not kept [MQTT ${version}]`, async () => {
        const collection = unique('c');
        const client = await broker.client({ version });
        await client.cmd(collection, {
            x: [1, { y: 2 }],
            type: 'insert',
            recordId: 'r',
            data: { a: 1 },
            'data ': { b: 2 },
            error: 5,
            code: {},
            metadata: { mutationId: 'm', colour: 'red', deep: [{}] },
            version: 99,
            updatedAt: 'never',
        });
        assert.equal((await client.answer()).type, 'ack');
        const record = await client.read(collection, 'r');
        assert.deepEqual(record.data, { a: 1 });
        assert.equal(record.version, 1);
        assert.deepEqual(Object.keys(record).sort(), ['data', 'id', 'updatedAt', 'version']);
    });
}

const INVALID = {
    nothing: '',
    'no JSON': 'hello',
    'half a message': '{"type":"insert","recordId":"r","data":{"a":1}',
    'two messages': '{"type":"ping"}{"type":"ping"}',
    'trailing text': '{"type":"ping"} x',
    'a byte order mark': '\ufeff{"type":"ping"}',
    'an array': '[{"type":"ping"}]',
    'a string': '"ping"',
    'a number': '1',
    null: 'null',
    'no type': '{"recordId":"r","data":{}}',
    'a type that is no string': '{"type":1}',
    'an unknown type': '{"type":"frobnicate"}',
    'a type of another case': '{"type":"PING"}',
    "a server's type": '{"type":"ack","recordId":"r","metadata":{"mutationId":"m","version":1,"seq":1}}',
    'type twice': '{"type":"ping","type":"ping"}',
    'no recordId': '{"type":"insert","data":{}}',
    'an empty recordId': '{"type":"insert","recordId":"","data":{}}',
    'a recordId with a slash': '{"type":"insert","recordId":"a/b","data":{}}',
    'a recordId with an escaped slash': '{"type":"insert","recordId":"a\\/b","data":{}}',
    'a recordId with a plus': '{"type":"insert","recordId":"a+","data":{}}',
    'a recordId with a hash': '{"type":"insert","recordId":"#","data":{}}',
    'a recordId with NUL': '{"type":"insert","recordId":"a\\u0000","data":{}}',
    'a recordId with a newline': '{"type":"insert","recordId":"a\\nb","data":{}}',
    'a recordId with DEL': '{"type":"insert","recordId":"a\\u007f","data":{}}',
    'a recordId of 129 bytes': `{"type":"insert","recordId":"${'x'.repeat(129)}","data":{}}`,
    'a recordId of 65 two-byte characters': `{"type":"insert","recordId":"${'é'.repeat(65)}","data":{}}`,
    'a recordId that is a number': '{"type":"insert","recordId":7,"data":{}}',
    'a collection that is a number': '{"type":"insert","collection":1,"recordId":"r","data":{}}',
    'a collection with a space': '{"type":"insert","collection":"a b","recordId":"r","data":{}}',
    'insert without data': '{"type":"insert","recordId":"r"}',
    'update without data': '{"type":"update","recordId":"r"}',
    'data that is an array': '{"type":"insert","recordId":"r","data":[]}',
    'data that is a string': '{"type":"insert","recordId":"r","data":"{}"}',
    'data that is null': '{"type":"insert","recordId":"r","data":null}',
    'data that is a number': '{"type":"update","recordId":"r","data":5}',
    'a timestamp that is a number': '{"type":"insert","recordId":"r","data":{},"timestamp":1700000000}',
    'a timestamp that is none': '{"type":"insert","recordId":"r","data":{},"timestamp":"yesterday"}',
    'a month that is none': '{"type":"insert","recordId":"r","data":{},"timestamp":"2026-13-01T00:00:00Z"}',
    'a day that is none': '{"type":"insert","recordId":"r","data":{},"timestamp":"2026-02-30T00:00:00Z"}',
    'metadata that is a string': '{"type":"insert","recordId":"r","data":{},"metadata":"x"}',
    'metadata that is an array': '{"type":"insert","recordId":"r","data":{},"metadata":[]}',
    'a mutationId that is a number': '{"type":"insert","recordId":"r","data":{},"metadata":{"mutationId":5}}',
    'an empty mutationId': '{"type":"insert","recordId":"r","data":{},"metadata":{"mutationId":""}}',
    'a mutationId of 129 bytes': `{"type":"insert","recordId":"r","data":{},"metadata":{"mutationId":"${'m'.repeat(129)}"}}`,
    'a negative baseVersion': '{"type":"update","recordId":"r","data":{},"metadata":{"baseVersion":-1}}',
    'a fraction as baseVersion': '{"type":"update","recordId":"r","data":{},"metadata":{"baseVersion":1.5}}',
    'text as baseVersion': '{"type":"update","recordId":"r","data":{},"metadata":{"baseVersion":"1"}}',
    'a baseVersion past 2^64':
        '{"type":"update","recordId":"r","data":{},"metadata":{"baseVersion":18446744073709551617}}',
    'text as ifVersion': '{"type":"update","recordId":"r","data":{},"metadata":{"ifVersion":"1"}}',
    'a negative since': '{"type":"sync","metadata":{"since":-1}}',
    'text as since': '{"type":"subscribe","metadata":{"since":"1"}}',
    'a number as epoch': '{"type":"sync","metadata":{"since":1,"epoch":5}}',
    'text as sync': '{"type":"subscribe","metadata":{"sync":"false"}}',
    'an unknown kind of updates': '{"type":"subscribe","metadata":{"updates":"some"}}',
    'text as limit': '{"type":"sync","metadata":{"limit":"10"}}',
};

matrix(
    'what is no message of the protocol is INVALID_MESSAGE, and the connection stays',
    { qos: [0, 1, 2] },
    async ({ version, qos }) => {
        const collection = unique('c');
        const client = await broker.client({ version, qos });
        const reader = await broker.client({ version });
        await reader.subscribe(`sync/${collection}/evt/#`);
        for (const [what, payload] of Object.entries(INVALID)) {
            refused(await client.cmd(collection, payload), { version, qos });
            const error = await client.answer().catch((failure) => assert.fail(`${what}: ${failure.message}`));
            assert.deepEqual(
                [error.type, error.code],
                ['error', 'INVALID_MESSAGE'],
                `${what}: ${JSON.stringify(error)}`,
            );
            assert.equal(
                error.metadata?.collection,
                what.startsWith('a collection') ? error.metadata?.collection : collection,
                what,
            );
        }
        await client.noAnswers(collection);
        assert.equal((await client.sync(collection)).records.size, 0);
        await eventBarrier(client, collection, reader);
        assert.deepEqual(reader.events, []);
    },
);

matrix(
    'an error says which record and mutation it is about',
    { forms: FORMS, skip: needsMetadata },
    async ({ version, qos, form }) => {
        const collection = unique('c');
        const client = await broker.client({ version, qos });
        const mutationId = unique('m');
        for (const type of ['update', 'delete']) {
            const data = type === 'update' ? { a: 1 } : undefined;
            refused(
                await client.write(form, { type, collection, recordId: 'nobody', data, metadata: { mutationId } }),
                { version, qos },
            );
            const error = await client.answer();
            assert.deepEqual([error.type, error.code], ['error', 'RECORD_NOT_FOUND']);
            assert.deepEqual(error.metadata, {
                collection,
                recordId: 'nobody',
                mutationId,
                ...(error.metadata.version !== undefined && { version: 0 }),
            });
        }
        await client.noAnswers(collection);
    },
);

matrix(
    'an error about what is no JSON, or too large, says which record and mutation it is about',
    { forms: FORMS, skip: needsMetadata },
    async ({ version, qos, form }) => {
        const collection = unique('c');
        const client = await broker.client({ version, qos });
        const tooLarge = `{"a":"${'x'.repeat(1 << 20)}"}`;
        for (const data of ['{"a":1,"a":2}', '{"b":{"c":"\\ud800"}}', '{"a":01}', '{"a":', tooLarge]) {
            const mutationId = unique('m');
            refused(
                await client.write(form, { type: 'insert', collection, recordId: 'r', data, metadata: { mutationId } }),
                { version, qos },
            );
            const error = await client.answer();
            assert.deepEqual([error.type, error.code], ['error', 'INVALID_MESSAGE'], data.slice(0, 40));
            assert.deepEqual(error.metadata, { collection, recordId: 'r', mutationId }, data.slice(0, 40));
        }
        await client.noAnswers(collection);
    },
);

matrix('bad data in the short form is INVALID_MESSAGE', { qos: [0, 1, 2] }, async ({ version, qos }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    for (const payload of [
        '',
        'x',
        '[]',
        '"x"',
        '5',
        'null',
        '{"a":1',
        '{"a":1,"a":2}',
        '{"a":1}}',
        Buffer.from('7b2261223a22c328227d', 'hex'),
    ]) {
        for (const op of ['insert', 'update']) {
            refused(await client.short(collection, 'r', op, payload), { version, qos });
            const error = await client.answer();
            assert.deepEqual(
                [error.type, error.code, error.metadata.collection, error.metadata.recordId],
                ['error', 'INVALID_MESSAGE', collection, 'r'],
                `${payload}`,
            );
        }
    }
    await client.noAnswers(collection);
    assert.equal((await client.sync(collection)).records.size, 0);
});

test('properties that are empty harm nobody, and events keep those that are not meant for the plugin [MQTT 5]', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/#`);
    for (const [given, kept] of [
        [{ userProperties: { '': 'x' } }, { userProperties: { '': 'x' } }],
        [{ userProperties: { '': '', ifVersion: '0', colour: '' } }, { userProperties: { '': '', colour: '' } }],
        [{ contentType: '', userProperties: { ifVersion: '0' } }, { contentType: '' }],
        [{ responseTopic: `re/${collection}`, correlationData: Buffer.alloc(0) }, {}],
    ]) {
        const recordId = unique('r');
        accepted(await client.short(collection, recordId, 'insert', '{}', { properties: given }));
        const { properties = {} } = await reader.eventPacket((m) => m.topic.endsWith(`/${recordId}`));
        const { contentType, userProperties } = JSON.parse(JSON.stringify(properties));
        const { contentType: keptType, userProperties: keptPairs } = kept;
        assert.deepEqual([contentType, userProperties], [keptType, keptPairs], JSON.stringify(given));
    }
});

test('wrong user properties in the short form are INVALID_MESSAGE [MQTT 5]', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    for (const [key, value] of [
        ['baseVersion', 'x'],
        ['baseVersion', '-1'],
        ['baseVersion', ''],
        ['ifVersion', '1.5'],
        ['ifVersion', '99999999999999999999'],
        ['timestamp', 'soon'],
        ['mutationId', ''],
        ['mutationId', 'm'.repeat(129)],
    ]) {
        refused(
            await client.short(collection, 'r', 'insert', '{}', { properties: { userProperties: { [key]: value } } }),
            { version: 5, qos: 1 },
        );
        assert.equal((await client.answer()).code, 'INVALID_MESSAGE', `${key} = ${value}`);
    }
    // Others are nobody's business.
    accepted(
        await client.short(collection, 'r', 'insert', '{}', { properties: { userProperties: { colour: 'red' } } }),
    );
    await client.noAnswers(collection);
    assert.equal((await client.sync(collection)).records.size, 1);
});

matrix('timestamp and versions as user properties of the short form', { versions: [5] }, async ({ version, qos }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    const write = (type, data, metadata, timestamp) =>
        client.write('short', { type, collection, recordId: 'r', data, timestamp, metadata });
    await write('insert', { a: 1 }, { mutationId: 'm1' }, '2026-03-04T05:06:07.089Z');
    assert.equal((await client.answer('ack')).metadata.version, 1);
    assert.equal((await client.read(collection, 'r')).updatedAt, '2026-03-04T05:06:07.089Z');
    refused(await write('update', { a: 2 }, { ifVersion: 7 }), { version, qos });
    assert.deepEqual((({ code, metadata }) => [code, metadata.version])(await client.answer()), ['CONFLICT', 1]);
    await write('update', { a: 3 }, { ifVersion: 1, mutationId: 'm2' });
    assert.equal((await client.answer('ack')).metadata.version, 2);
    await write('update', { a: 4 }, { baseVersion: 1 }, '2026-03-04T05:06:08Z');
    const winner = await client.answer('update');
    assert.deepEqual([winner.data, winner.metadata.version, winner.metadata.conflict], [{ a: 3 }, 2, true]);
    await write('delete', undefined, { baseVersion: 2, mutationId: 'm3' });
    assert.equal((await client.answer('ack')).metadata.version, 3);
    await client.noAnswers(collection);
});

for (const qos of [0, 1, 2]) {
    test(`Response Topic and Correlation Data are honoured [MQTT 5 QoS ${qos}]`, async () => {
        const collection = unique('c');
        const responseTopic = `answers/${unique()}`;
        const client = await broker.client({ version: 5, qos });
        const bystander = await broker.client({ version: 5 });
        await bystander.subscribe(`sync/${collection}/re/#`);
        client.answerTopics.add(responseTopic);
        const ask = (message, correlation) =>
            client.cmd(collection, message, {
                properties: { responseTopic, correlationData: Buffer.from(correlation) },
            });
        const expectAnswer = async (type, correlation) => {
            const answer = await client.answerPacket();
            assert.equal(answer.json.type, type);
            assert.equal(answer.topic, responseTopic);
            assert.equal(answer.qos, qos);
            assert.equal(answer.properties?.correlationData?.toString('latin1'), correlation);
        };
        await ask({ type: 'ping' }, 'one');
        await expectAnswer('pong', 'one');
        await ask(
            {
                type: 'insert',
                recordId: 'r',
                data: { a: 1 },
                timestamp: new Date(Date.now() - 5000).toISOString(),
                metadata: { mutationId: 'm' },
            },
            'two',
        );
        await expectAnswer('ack', 'two');
        await ask({ type: 'subscribe' }, 'three');
        await expectAnswer('subscribed', 'three');
        await expectAnswer('sync', 'three');
        await ask({ type: 'sync' }, '\u0001\u0000\u00ff');
        await expectAnswer('sync', Buffer.from('\u0001\u0000\u00ff').toString('latin1'));
        await ask({ type: 'update', recordId: 'nobody', data: {} }, 'four');
        await expectAnswer('error', 'four');
        await ask({ type: 'update', recordId: 'r', data: { a: 2 }, timestamp: '2020-01-01T00:00:00Z' }, 'five');
        await expectAnswer('update', 'five');
        await client.cmd(collection, '{"type":', { properties: { responseTopic } });
        assert.equal((await client.answerPacket('error')).topic, responseTopic);
        // Correlation Data alone come back on the usual topic.
        await client.cmd(collection, { type: 'ping' }, { properties: { correlationData: Buffer.from('six') } });
        const pong = await client.answerPacket('pong');
        assert.equal(pong.topic, `sync/${collection}/re/${client.clientId}`);
        assert.equal(pong.properties?.correlationData?.toString(), 'six');
        await client.noAnswers(collection);
        assert.deepEqual(bystander.all, []);
    });

    test(`Response Topic and Correlation Data in the short form [MQTT 5 QoS ${qos}]`, async () => {
        const collection = unique('c');
        const responseTopic = `answers/${unique()}`;
        const client = await broker.client({ version: 5, qos });
        client.answerTopics.add(responseTopic);
        await client.short(collection, 'r', 'insert', '{"a":1}', {
            properties: { responseTopic, correlationData: Buffer.from('c'), userProperties: { mutationId: 'm' } },
        });
        const ack = await client.answerPacket('ack');
        assert.deepEqual([ack.topic, ack.properties?.correlationData?.toString()], [responseTopic, 'c']);
    });
}

test('a Response Topic makes nothing pass for a message of the server or a command', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/#`);
    await reader.subscribe('private/#');
    for (const responseTopic of [
        `sync/${collection}/evt/forged`,
        `sync/${collection}/rec/forged`,
        `sync/${collection}/re/${reader.clientId}`,
        `sync/${collection}/cmd`,
        'private/door',
    ]) {
        client.answerTopics.add(responseTopic);
        await client.cmd(collection, { type: 'ping' }, { properties: { responseTopic } });
    }
    await eventBarrier(client, collection, reader);
    assert.deepEqual(
        reader.all.filter((m) => m.kind !== 'events').map((m) => m.topic),
        [],
    );
    assert.deepEqual(reader.events, []);
});

matrix('answers reach the asking client alone, subscribed or not', { qos: [1] }, async ({ version, qos }) => {
    const collection = unique('c');
    const asks = await broker.client({ version, qos });
    const listens = await broker.client({ version, qos });
    await asks.subscribe(`sync/${collection}/re/${asks.clientId}`);
    await listens.subscribe(`sync/${collection}/re/#`);
    await listens.subscribe('#');
    await asks.settle(collection);
    await asks.noAnswers(collection); // once, although it is subscribed
    await listens.settle(collection);
    assert.deepEqual(
        listens.all.filter((m) => m.topic !== `sync/${collection}/re/${listens.clientId}`).map((m) => m.topic),
        [],
    );
});

for (const version of VERSIONS) {
    test(`characters of a client id that a level cannot hold become _ [MQTT ${version}]`, async () => {
        for (const [clientId, level] of [
            ['a/b', 'a_b'],
            ['a+b#c', 'a_b_c'],
            ['/', '_'],
            ['ümläut 😀', 'ümläut 😀'],
            ['a_b-c.d:e', 'a_b-c.d:e'],
            ['$SYS', '$SYS'],
        ]) {
            const client = await broker.client({ version, clientId });
            await client.cmd('any', { type: 'ping' });
            assert.equal((await client.answerPacket('pong')).topic, `sync/any/re/${level}`);
            await client.close();
        }
    });

    test(`a refused write leaves connection and QoS 1 and 2 handshakes intact [MQTT ${version}]`, async () => {
        const collection = unique('c');
        const raw = broker.raw({ version, clientId: unique('raw') });
        await raw.connect();
        const expected = version === 5 ? 0x87 : 0;
        raw.publish(`sync/${collection}/cmd/x/update`, '{"a":1}', { qos: 1, id: 1 });
        const puback = await raw.next('puback', (p) => p.id === 1);
        assert.ok(
            version === 4 || puback.reasonCode >= 0x80,
            `PUBACK reason ${puback.reasonCode}, such as ${expected}`,
        );
        raw.publish(`sync/${collection}/cmd/x/update`, '{"a":1}', { qos: 2, id: 2 });
        const pubrec = await raw.next('pubrec', (p) => p.id === 2);
        assert.ok(version === 4 || pubrec.reasonCode >= 0x80, `PUBREC reason ${pubrec.reasonCode}`);
        if (version === 4) {
            raw.pubrel(2);
            await raw.next('pubcomp', (p) => p.id === 2);
        }
        for (let i = 0; i < 2; i++) {
            const answer = await raw.next('publish');
            assert.equal(JSON.parse(answer.payload).code, 'RECORD_NOT_FOUND');
            if (answer.qos === 1) raw.puback(answer.id);
        }
        await raw.ping();
        assert.equal(raw.closed, false);
        raw.destroy();
    });
}

test('userId is the MQTT user name; only a trusted user may act for another', async () => {
    const collection = unique('c');
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/#`);
    const act = async (options, userId) => {
        const client = await broker.client({ version: 5, ...options });
        const recordId = unique('r');
        const properties = userId === undefined ? {} : { properties: { userProperties: { userId } } };
        await client.short(collection, recordId, 'insert', '{}', properties);
        await eventBarrier(client, collection, reader);
        const event = reader.events.splice(0).find((m) => m.json.recordId === recordId);
        return event?.json.metadata.userId;
    };
    assert.equal(await act({}), null);
    assert.equal(await act({ username: 'ana' }), 'ana');
    assert.equal(await act({ username: 'gateway' }, 'ben'), 'ben');
    assert.ok(['ana', undefined].includes(await act({ username: 'ana' }, 'ben')), 'ana acted as ben');
    assert.ok([null, undefined].includes(await act({}, 'ben')), 'somebody acted as ben');
});

test('COLLECTION_NOT_FOUND for what is not configured', async () => {
    const strict = await Broker.start({ config: { collections: { ready: {}, todos: {} } } });
    try {
        for (const version of VERSIONS) {
            const client = await strict.client({ version });
            for (const message of [
                { type: 'insert', recordId: 'r', data: {} },
                { type: 'update', recordId: 'r', data: {} },
                { type: 'delete', recordId: 'r' },
                { type: 'subscribe' },
                { type: 'sync' },
            ]) {
                refused(await client.cmd('others', message), { version, qos: 1 });
                const error = await client.answer();
                assert.deepEqual(
                    [error.code, error.metadata.collection],
                    ['COLLECTION_NOT_FOUND', 'others'],
                    message.type,
                );
            }
            await client.short('others', 'r', 'insert', '{}');
            assert.equal((await client.answer()).code, 'COLLECTION_NOT_FOUND');
            await client.cmd('todos', { type: 'subscribe' });
            assert.deepEqual(
                (({ recordCount, seq }) => [recordCount, seq])((await client.answer('subscribed')).metadata),
                [0, 0],
            );
            await client.noAnswers('todos');
        }
    } finally {
        await strict.stop();
    }
});

test('maxRecordBytes bounds a record, also one that grows by updates', async () => {
    const small = await Broker.start({ config: { collections: { '*': {} }, limits: { maxRecordBytes: 1000 } } });
    try {
        const client = await small.client({ version: 5 });
        refused(await client.short('c', 'r', 'insert', { text: 'x'.repeat(1000) }), { version: 5, qos: 1 });
        assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
        accepted(await client.short('c', 'r', 'insert', { text: 'x'.repeat(900) }));
        refused(await client.short('c', 'r', 'update', { more: 'x'.repeat(200) }), { version: 5, qos: 1 });
        assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
        assert.deepEqual((await client.read('c', 'r')).data, { text: 'x'.repeat(900) });
    } finally {
        await small.stop();
    }
});

test('RATE_LIMIT_EXCEEDED past messagesPerMinute, for that user alone', async () => {
    const limited = await Broker.start({ config: { collections: { '*': {} }, limits: { messagesPerMinute: 20 } } });
    try {
        const busy = await limited.client({ version: 5, username: 'busy' });
        const calm = await limited.client({ version: 5, username: 'calm' });
        const codes = [];
        for (let i = 0; i < 60; i++) {
            codes.push(await busy.short('c', `r${i}`, 'insert', '{}'));
        }
        const error = await busy.answer('error');
        assert.equal(error.code, 'RATE_LIMIT_EXCEEDED');
        const kept = codes.filter((code) => code < 0x80).length;
        assert.ok(kept >= 20 && kept <= 25, `${kept} of 60 were accepted with a limit of 20`);
        accepted(await calm.short('c', 'calm', 'insert', '{}'));
        assert.equal((await calm.sync('c')).records.size, kept + 1);
    } finally {
        await limited.stop();
    }
});

test('what cannot be understood counts for messagesPerMinute as well', async () => {
    const limited = await Broker.start({ config: { collections: { '*': {} }, limits: { messagesPerMinute: 4 } } });
    try {
        const client = await limited.client({ version: 5 });
        const codes = [];
        for (const [topic, payload] of [
            ['c/cmd', 'no JSON'],
            ['c/evt/r', '{}'],
            ['c/cmd', '{"type":"ping"}'],
            ['c/cmd/r/insert', '[]'],
            ['c/cmd', 'no JSON'],
            ['c/cmd', '{"type":"ping"}'],
        ]) {
            await client.publish(`sync/${topic}`, payload);
            codes.push((await client.answer()).code);
        }
        const limit = 'RATE_LIMIT_EXCEEDED';
        assert.deepEqual(codes, ['INVALID_MESSAGE', 'UNAUTHORIZED', undefined, 'INVALID_MESSAGE', limit, limit]);
    } finally {
        await limited.stop();
    }
});

// Mosquitto 2.0 takes max_queued_messages 0 for a full queue when it denies somebody a message, and ends the connection.
test('a refusal without a reason code leaves the connection with max_queued_messages 0 as well', async () => {
    const endless = await Broker.start({ config: { collections: { '*': {} } }, conf: ['max_queued_messages 0'] });
    try {
        for (const [version, qos] of [
            [4, 0],
            [4, 1],
            [4, 2],
            [5, 0],
        ]) {
            const raw = endless.raw({ version, clientId: unique('raw') });
            await raw.connect();
            for (const topic of ['sync/c/cmd/none/update', 'sync/c/evt/forged']) {
                raw.publish(topic, '{"a":1}', { qos, id: 1 });
                const answer = await raw.next('publish');
                const code = topic.includes('evt') ? 'UNAUTHORIZED' : 'RECORD_NOT_FOUND';
                assert.equal(JSON.parse(answer.payload).code, code);
                if (qos === 1) await raw.next('puback', (p) => p.id === 1);
                if (qos === 2) {
                    await raw.next('pubrec', (p) => p.id === 1);
                    raw.pubrel(1);
                    await raw.next('pubcomp', (p) => p.id === 1);
                }
                if (answer.qos === 1) raw.puback(answer.id);
            }
            await raw.ping();
            assert.equal(raw.closed, false);
            raw.destroy();
        }
    } finally {
        await endless.stop();
    }
});
