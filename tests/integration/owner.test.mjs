// SPDX-License-Identifier: BSD-3-Clause
// `read`, `write` and `owner` for users that a trusted MQTT user acts for, as the bridge does.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';

const config = {
    collections: {
        open: {},
        closed: { read: [], write: [] },
        listed: { read: ['user:ana', 'role:staff'], write: ['role:staff'] },
        notes: { read: ['role:staff'], write: ['role:staff'], owner: 'ownerId' },
        inbox: { read: ['role:staff'], write: ['*'], owner: 'to' },
        kept: { read: [], write: [], owner: 'ownerId', retain: true },
        ready: {},
    },
    trustedUsers: ['gateway'],
};

const started = async (t, options = {}) => {
    const broker = await Broker.start({ config, ...options });
    t.after(() => broker.stop());
    return broker;
};
const gateway = (broker, options = {}) => broker.client({ version: 5, username: 'gateway', ...options });

/** Publish options with which the gateway acts for somebody; '' is an app without a token. */
const as = (userId, { role = [], ...more } = {}) => ({
    properties: { userProperties: { userId, ack: '1', ...(role.length && { role }), ...more } },
});

/** Writes for somebody and resolves with the error's code or the version. */
async function write(client, who, collection, recordId, type, data, metadata) {
    const message = { type, collection, recordId, ...(data && { data }), ...(metadata && { metadata }) };
    await client.cmd(collection, message, typeof who === 'string' ? as(who) : who);
    const answer = await client.answer((m) => m.json.recordId === recordId || m.json.metadata?.recordId === recordId);
    return answer.type === 'ack' && !answer.metadata.conflict ? answer.metadata.version : answer.code ?? answer.type;
}

async function ask(client, who, collection, metadata, type = 'sync') {
    await client.cmd(collection, { type, collection, ...(metadata && { metadata }) }, as(who));
    if (type === 'subscribe') {
        const { recordCount } = (await client.answer((m) => ['subscribed', 'error'].includes(m.json.type))).metadata;
        if (metadata?.sync === false) return { recordCount };
        return { recordCount, ...(await client.pages(collection)) };
    }
    const packet = await client.answer((m) => ['sync', 'error'].includes(m.json.type));
    if (packet.type === 'error') return packet.code;
    client.answers.unshift({ json: packet });
    return client.pages(collection);
}
const ids = (answer) => [[...answer.records.keys()].sort(), [...answer.deleted.keys()].sort()];

test('read and write hold for whom a trusted user acts', async (t) => {
    const broker = await started(t);
    const client = await gateway(broker);
    const staff = { role: ['guest', 'staff'] };
    const rows = [
        // collection, user, with, may write, may read
        ['open', '', {}, true, true],
        ['open', 'ana', {}, true, true],
        ['closed', 'ana', staff, false, false],
        ['listed', '', {}, false, false],
        ['listed', 'ana', {}, false, true],
        ['listed', 'ben', {}, false, false],
        ['listed', 'ben', staff, true, true],
        ['listed', '', staff, true, true],
        ['listed', 'ben', { role: ['staf', 'staff2', ''] }, false, false],
        ['notes', '', {}, false, false],
        ['inbox', '', {}, true, false],
    ];
    for (const [collection, user, more, mayWrite, mayRead] of rows) {
        const what = `${collection}, ${user} ${JSON.stringify(more)}`;
        const written = await write(client, as(user, more), collection, unique('r'), 'insert', { a: 1 });
        assert.equal(written, mayWrite ? 1 : 'UNAUTHORIZED', `writes ${what}`);
        await client.short(collection, 'short', 'insert', { a: 1 }, as(user, more));
        const answer = await client.answer((m) => m.json.recordId === 'short' || m.json.metadata?.recordId === 'short');
        assert.equal(answer.type === 'ack', mayWrite, `writes in the short form ${what}`);
        for (const type of ['sync', 'subscribe']) {
            await client.cmd(collection, { type, collection, metadata: { sync: false } }, as(user, more));
            const read = await client.answer((m) => ['sync', 'subscribed', 'error'].includes(m.json.type));
            assert.equal(read.type === 'error' ? read.code : true, mayRead || 'UNAUTHORIZED', `${type} ${what}`);
        }
    }
    // without userId a trusted user is bound by nothing
    assert.equal(await write(client, { properties: { userProperties: { ack: '' } } }, 'closed', 'r', 'insert', {}), 1);
    assert.deepEqual(ids(await client.sync('closed')), [['r'], []]);
});

test('nobody else acts for others or has roles', async (t) => {
    const broker = await started(t);
    const client = await broker.client({ version: 5, username: 'mallory' });
    await client.short('open', 'r', 'insert', {}, as('ana'));
    assert.equal((await client.answer('error')).code, 'UNAUTHORIZED');
    await client.short('open', 'r', 'insert', {}, { properties: { userProperties: { role: 'staff', ack: '' } } });
    assert.equal((await client.answer('ack')).metadata.version, 1);
});

test('an ack is sent when it is asked for', async (t) => {
    const broker = await started(t);
    const client = await broker.client({ version: 5 });
    const asking = { properties: { userProperties: { ack: 'please' } } };
    await client.subscribe('sync/open/evt/#');
    await client.short('open', 'r', 'insert', { a: 1 }, asking);
    const { metadata } = await client.answer('ack');
    assert.equal(metadata.version, 1);
    assert.ok(metadata.seq > 0 && !('mutationId' in metadata), JSON.stringify(metadata));
    assert.equal((await client.eventPacket()).properties?.userProperties?.ack, undefined, 'it is taken off the event');
    const timestamp = '2020-01-01T00:00:00.000Z';
    await client.cmd('open', { type: 'update', recordId: 'r', data: { a: 2 }, timestamp }, asking);
    await client.answer({ type: 'update', conflict: true });
    assert.equal((await client.answer('ack')).metadata.conflict, true, 'of a lost write, too');
    await client.noAnswers('open');
});

test('an owner writes his own records', async (t) => {
    const broker = await started(t);
    const client = await gateway(broker);
    const w = (...args) => write(client, ...args);
    assert.equal(await w('ana', 'notes', 'n', 'insert', { ownerId: 'ben' }), 'UNAUTHORIZED', 'a new one of another');
    assert.equal(await w('ana', 'notes', 'n', 'insert', { a: 1 }), 'UNAUTHORIZED', 'a new one of nobody');
    assert.equal(await w('ana', 'notes', 'n', 'insert', { ownerId: 'ana', a: 1 }), 1);
    assert.equal(await w('ben', 'notes', 'n', 'update', { a: 2 }), 'UNAUTHORIZED');
    assert.equal(await w('ben', 'notes', 'n', 'insert', { ownerId: 'ben' }), 'UNAUTHORIZED', 'replaces it');
    assert.equal(await w('ben', 'notes', 'n', 'delete'), 'UNAUTHORIZED');
    assert.equal(await w('ben', 'notes', 'n', 'update', { a: 2 }, { ifVersion: 9 }), 'UNAUTHORIZED', 'no version shown');
    assert.equal(await w('ana', 'notes', 'n', 'update', { a: 2 }), 2);
    assert.equal(await w('ana', 'notes', 'gone', 'update', { a: 2 }), 'RECORD_NOT_FOUND');
    // handing over, and the same message once more
    const mutationId = unique('m');
    const handing = ['notes', 'n', 'update', { ownerId: 'ben' }, { mutationId }];
    assert.equal(await w('ana', ...handing), 3);
    assert.equal(await w('ana', ...handing), 3, 'repeated');
    assert.equal(await w('ben', ...handing), 3, 'the owner may use any mutationId');
    assert.equal(await w('eve', ...handing), 'UNAUTHORIZED', 'a mutationId gives no rights');
    assert.equal(await w('ana', 'notes', 'n', 'update', { a: 9 }, { mutationId }), 'UNAUTHORIZED');
    assert.equal(await w('ana', 'notes', 'n', 'update', { a: 3 }), 'UNAUTHORIZED');
    assert.equal(await w('ben', 'notes', 'n', 'delete', undefined, { mutationId: 'd' }), 4);
    assert.equal(await w('ben', 'notes', 'n', 'delete', undefined, { mutationId: 'd' }), 4, 'repeated');
    assert.equal(await w('eve', 'notes', 'n', 'delete', undefined, { mutationId: 'd' }), 'UNAUTHORIZED');
    assert.equal(await w('eve', 'notes', 'n', 'insert', { ownerId: 'eve' }), 5, 'a deleted one is nobody’s');
    assert.deepEqual((await client.read('notes', 'n')).data, { ownerId: 'eve' });
    // whoever is listed may do all of it
    assert.equal(await write(client, as('cy', { role: ['staff'] }), 'notes', 'n', 'update', { ownerId: 17 }), 6);
    assert.equal(await w('17', 'notes', 'n', 'update', { b: 1 }), 7, 'a number names a user by its digits');
});

test('an owner sees his own records, and what is not his any more', async (t) => {
    const broker = await started(t);
    const client = await gateway(broker);
    const w = (...args) => write(client, ...args);
    for (let i = 0; i < 4; i++) {
        await w('ana', 'notes', `a${i}`, 'insert', { ownerId: 'ana', i });
        await w('ben', 'notes', `b${i}`, 'insert', { ownerId: 'ben', i });
    }
    const first = await ask(client, 'ana', 'notes');
    assert.deepEqual(ids(first), [['a0', 'a1', 'a2', 'a3'], []]);
    assert.equal(first.pages[0].metadata.total, 4);
    assert.equal((await ask(client, 'ana', 'notes', { sync: false }, 'subscribe')).recordCount, 4);
    assert.equal((await ask(client, 'eve', 'notes', { sync: false }, 'subscribe')).recordCount, 0);
    const { recordCount, records } = await ask(client, 'ana', 'notes', undefined, 'subscribe');
    assert.deepEqual([recordCount, records.size], [4, 4]);
    assert.equal((await client.sync('notes')).records.size, 8, 'the gateway itself sees all');

    await w('ana', 'notes', 'a0', 'update', { ownerId: 'ben' });
    await w('ana', 'notes', 'a1', 'delete');
    await w('ben', 'notes', 'b1', 'update', { ownerId: 'ana' });
    await w('ben', 'notes', 'b2', 'delete');
    await w('ben', 'notes', 'b3', 'update', { i: 9 });
    const { seq, epoch } = first;
    const later = await ask(client, 'ana', 'notes', { since: seq, epoch });
    assert.deepEqual(ids(later), [['b1'], ['a0', 'a1']]);
    assert.equal(later.pages[0].metadata.total, 3);
    assert.deepEqual(Object.keys(later.deleted.get('a0')).sort(), ['id', 'updatedAt', 'version']);
    assert.deepEqual(ids(await ask(client, 'ben', 'notes', { since: seq, epoch })), [['a0', 'b3'], ['b1', 'b2']]);
    assert.deepEqual(ids(await ask(client, 'eve', 'notes', { since: seq, epoch })), [[], []]);
    const resumed = await ask(client, 'ana', 'notes', { since: seq, epoch }, 'subscribe');
    assert.deepEqual([resumed.recordCount, ids(resumed)], [3, [['b1'], ['a0', 'a1']]]);
    await client.cmd('notes', { type: 'sync', metadata: { since: seq, epoch, limit: 1 } }, as('ana'));
    const limited = await client.answer('sync');
    assert.deepEqual([limited.data.records, limited.data.deleted.map(({ id }) => id)], [[], ['a0']]);
    assert.deepEqual([limited.metadata.more, limited.metadata.total], [true, 1]);

    await broker.restart({ kill: true });
    const again = await gateway(broker);
    assert.deepEqual(ids(await ask(again, 'ana', 'notes', { since: seq, epoch })), [['b1'], ['a0', 'a1']], 'kill -9');
    await broker.restart();
    assert.deepEqual(ids(await ask(await gateway(broker), 'ana', 'notes', { since: seq, epoch })), [['b1'], ['a0', 'a1']]);
});

test('a few records of many', async (t) => {
    const broker = await started(t);
    const client = await gateway(broker, { qos: 0 });
    for (let i = 0; i < 3000; i++) {
        await client.short('notes', `n${i}`, 'insert', { ownerId: i % 500 ? 'ben' : 'ana', i });
    }
    await client.settle('notes', { qos: 0 });
    const { recordCount, records, pages } = await ask(client, 'ana', 'notes', undefined, 'subscribe');
    assert.equal(recordCount, 6);
    assert.deepEqual([...records.keys()], ['n0', 'n500', 'n1000', 'n1500', 'n2000', 'n2500']);
    assert.deepEqual(pages.map((page) => page.metadata.total), [6]);
    const ben = await ask(client, 'ben', 'notes');
    assert.equal(ben.records.size, 2994);
    assert.ok(ben.pages.every((page) => page.metadata.total === 2994));
    assert.equal((await ask(client, 'eve', 'notes', { sync: false }, 'subscribe')).recordCount, 0);
});

for (const [version, qos] of [[5, 1], [5, 2], [4, 1], [4, 2]]) {
    test(`events say whose the record is (MQTT ${version}, QoS ${qos})`, async (t) => {
        const broker = await started(t);
        const watcher = await gateway(broker);
        const writer = await gateway(broker, { version, qos });
        await watcher.subscribe('sync/+/evt/#');
        const steps = [
            ['insert', { ownerId: 'ana', a: 1, b: 2 }, { ownerId: 'ana', a: 1, b: 2 }, { owner: 'ana' }],
            ['update', { a: 2 }, { a: 2 }, { owner: 'ana', formerOwner: 'ana' }],
            ['update', { ownerId: 'ben', b: null }, { ownerId: 'ben', a: 2, b: null },
                { owner: 'ben', formerOwner: 'ana' }],
            ['insert', { ownerId: 'cé' }, { ownerId: 'cé', a: null }, { owner: 'cé', formerOwner: 'ben' }],
            ['update', { ownerId: null }, { ownerId: null }, { formerOwner: 'cé' }],
            ['update', { ownerId: 'a\nb' }, { ownerId: 'a\nb' }, {}],
            ['update', { ownerId: 'x'.repeat(1025) }, { ownerId: 'x'.repeat(1025) }, {}],
            ['update', { ownerId: 'ana', a: 3 }, { ownerId: 'ana', a: 3 }, { owner: 'ana' }],
            ['delete', undefined, undefined, { formerOwner: 'ana' }],
        ];
        // what a client claims of this kind does not get through, other user properties do
        const forged = version === 5 && {
            properties: { userProperties: { owner: 'eve', formerOwner: 'eve', color: 'red' } },
        };
        for (const [type, data, expected, properties] of steps) {
            await writer.cmd('notes', { type, recordId: 'n', data }, forged || {});
            const packet = await watcher.eventPacket();
            assert.deepEqual(packet.json.data, expected, `${type} ${JSON.stringify(data)}`);
            assert.deepEqual({ ...packet.properties?.userProperties }, { owner: '', formerOwner: '', ...properties, ...(forged && { color: 'red' }) });
        }
        await writer.cmd('open', { type: 'insert', recordId: 'o', data: { ownerId: 'ana' } });
        assert.equal((await watcher.eventPacket()).properties?.userProperties, undefined, 'elsewhere nothing is said');
    });
}

test('who may not see a record is not shown it when he loses to it', async (t) => {
    const broker = await started(t);
    const client = await gateway(broker);
    const old = '2020-01-01T00:00:00.000Z';
    const lose = async (who) => {
        const message = { type: 'update', recordId: 'm', data: { text: 'mine' }, timestamp: old };
        await client.cmd('inbox', message, as(who));
        return client.answer((m) => m.json.type !== 'pong');
    };
    assert.equal(await write(client, 'ana', 'inbox', 'm', 'insert', { to: 'ben', text: 'secret' }), 1);
    const refused = await lose('ana');
    assert.equal(refused.code, 'CONFLICT');
    assert.equal(refused.metadata.version, 1);
    assert.ok(!JSON.stringify(refused).includes('secret'));
    const shown = await lose('ben');
    assert.deepEqual([shown.type, shown.data.text], ['update', 'secret']);
    assert.equal((await client.answer('ack')).metadata.conflict, true);
    await client.noAnswers('inbox');
    assert.deepEqual(ids(await ask(client, 'ana', 'inbox')), [[], []], 'who wrote it does not see it either');
});

test('a write that is sent again after the connection was lost is known again', async (t) => {
    const broker = await started(t);
    const clientId = unique('lost');
    const connect = async () => {
        const client = broker.raw({ version: 5, clientId, username: 'gateway' });
        await client.connect({ clean: false });
        return client;
    };
    const send = (client, dup) =>
        client.publish('sync/notes/cmd/n/update', '{"ownerId":"ben"}', {
            qos: 1,
            id: 7,
            dup,
            properties: { userProperties: [['userId', 'ana']] },
        });
    const watcher = await gateway(broker);
    assert.equal(await write(watcher, 'ana', 'notes', 'n', 'insert', { ownerId: 'ana' }), 1);
    const first = await connect();
    send(first, false);
    await first.next('puback');
    first.destroy();
    await broker.waitForLog(new RegExp(`Client ${clientId} .*(closed|disconnected)`));
    const second = await connect();
    send(second, true);
    assert.ok((await second.next('puback')).reasonCode < 128);
    second.destroy();
    assert.equal((await watcher.read('notes', 'n')).version, 2);
});
