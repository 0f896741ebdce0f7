// SPDX-License-Identifier: BSD-3-Clause
// Collections with an `owner`: who is not listed sees and changes his own records alone, by whatever way they change.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { Bridge, token } from '../lib/bridge.mjs';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { randomness, seed } from '../lib/random.mjs';
import { Replica } from '../lib/replica.mjs';
import { poll } from '../lib/wait.mjs';

const secret = 'a secret of the test';
const owned = { owner: 'ownerId', read: ['role:staff'], write: ['role:staff'] };
const collections = { '*': owned, open: {} };
const trustedUsers = ['the-bridge'];
const broker = await Broker.start({ config: { collections, trustedUsers } });
after(() => broker.stop());
const keyFile = path.join(broker.directory, 'jwt.key');
fs.writeFileSync(keyFile, secret);
const config = { collections, trustedUsers, auth: { jwt: { algorithm: 'HS256', keyFile } }, bridge: { username: 'the-bridge' } };

async function start(more = {}, options = {}) {
    const bridge = new Bridge(broker, { ...config, ...more, bridge: { ...config.bridge, ...more.bridge } }, options);
    await bridge.start();
    after(() => bridge.stop());
    return bridge;
}

const bridges = { 'reading the database': await start(), 'reading through the broker': await start({}, { database: false }) };

// Each record says in `mark` whose it is. What was ever sent to somebody is looked through for others' marks, by its
// letters, whatever message it came in.
const markOf = (user) => `mark-of-${user}.`;
const record = (user, more = {}) => ({ ownerId: user, mark: markOf(user), ...more });
const leaks = [];
after(() => assert.deepEqual(leaks, [], 'records that were sent to others than their owners'));

function jwt(user, claims = {}) {
    return token(secret, { userId: user, ...(user === 'staff' ? { roles: ['staff'] } : {}), ...claims });
}

function watching(user) {
    return (text) => {
        const foreign = [...text.matchAll(/mark-of-(\w+)\./g)].find(([, whose]) => whose !== user);
        if (foreign && user !== 'staff' && leaks.length < 10) {
            leaks.push(`${user} was sent ${text.slice(Math.max(foreign.index - 200, 0), foreign.index + 50)}`);
        }
    };
}

function connect(bridge, user, where = '/ws', options = {}) {
    return bridge.client(`${where}?token=${jwt(user)}`, { seen: watching(user), ...options });
}

/** Everything up to a record that the owner is sent for that purpose. */
async function upTo(client, owner, collection, writer) {
    const id = unique('end');
    assert.equal((await writer.write('insert', collection, id, record(owner))).type, 'ack');
    const messages = [];
    for (;;) {
        const m = await client.next();
        if (m.recordId === id) {
            return messages;
        }
        const records = m.data?.records?.filter((r) => r.id !== id);
        const last = records && records.length < m.data.records.length;
        if (!last || records.length || m.data.deleted?.length) {
            messages.push(records ? { ...m, data: { ...m.data, records } } : m);
        }
        if (last) {
            return messages;
        }
    }
}

const brief = (messages) => messages.map((m) => [m.type, m.recordId, m.metadata.version]);

/** What the database holds for a user, as a Replica's list. */
function heldFor(collection, user) {
    return broker.stored(collection)
        .filter(({ data }) => data.ownerId === user)
        .map(({ id, version, data }) => [id, version, data])
        .sort(([a], [b]) => (a < b ? -1 : 1));
}

for (const [how, bridge] of Object.entries(bridges)) {
    test(`every operation, ${how}`, async () => {
        const collection = unique('c');
        const [ana, bo, staff] = await Promise.all(['ana', 'bo', 'staff'].map((user) => connect(bridge, user)));
        for (const client of [ana, bo, staff]) {
            assert.equal((await client.subscribe(collection)).recordCount, 0);
        }
        assert.equal((await ana.write('insert', collection, 'a', record('ana'))).type, 'ack');
        assert.equal((await bo.write('insert', collection, 'b', record('bo'))).type, 'ack');
        // for somebody else, or for nobody
        assert.equal((await ana.write('insert', collection, 'x', { ownerId: 'bo' })).code, 'UNAUTHORIZED');
        assert.equal((await ana.write('insert', collection, 'x', {})).code, 'UNAUTHORIZED');
        const strict = await ana.write('update', collection, 'b', { n: 1 }, { ifVersion: 7 });
        assert.deepEqual([strict.code, strict.metadata.version], ['UNAUTHORIZED', undefined], 'nor its version');
        // what is somebody else's
        for (const type of ['insert', 'update', 'delete']) {
            const data = type === 'delete' ? undefined : record('ana');
            assert.equal((await ana.write(type, collection, 'b', data)).code, 'UNAUTHORIZED', type);
        }
        assert.equal((await ana.write('update', collection, 'a', { n: 1 })).metadata.version, 2);
        assert.equal((await ana.write('insert', collection, 'a', record('ana', { n: 2 }))).metadata.version, 3);
        assert.equal((await staff.write('update', collection, 'b', { n: 1 })).metadata.version, 2);
        const device = await broker.client({ version: 5, username: 'sensor' });
        await device.short(collection, 'd', 'insert', record('ana', { n: 3 }));
        assert.deepEqual(brief(await upTo(ana, 'ana', collection, staff)), [['insert', 'd', 1]]);
        assert.deepEqual(brief(await upTo(bo, 'bo', collection, staff)), [['update', 'b', 2]]);

        ana.send({ type: 'sync', collection });
        const page = await ana.take('sync');
        assert.deepEqual([page.data.records.map((r) => r.id).sort()[0], page.metadata.total, page.metadata.full], ['a', 3, true]);
        const again = await (await connect(bridge, 'ana')).subscribe(collection);
        assert.deepEqual([again.recordCount, again.records.size, again.pages[0].metadata.total], [3, 3, 3]);
        const all = await (await connect(bridge, 'staff')).subscribe(collection);
        assert.equal(all.recordCount, 5);

        assert.equal((await ana.write('delete', collection, 'a')).type, 'ack');
        assert.deepEqual(brief(await upTo(ana, 'ana', collection, staff)), [], 'not her own deletion');
        assert.deepEqual(brief(await upTo(bo, 'bo', collection, staff)), []);
        assert.deepEqual((await staff.take({ type: 'delete', recordId: 'a' })).metadata.userId, 'ana');
        assert.equal((await ana.write('delete', collection, 'b')).code, 'UNAUTHORIZED');
        // an id that was hers once
        assert.equal((await bo.write('insert', collection, 'a', record('bo'))).type, 'ack');
        assert.deepEqual(brief(await upTo(ana, 'ana', collection, staff)), []);
    });

    test(`nobody and other rules, ${how}`, async () => {
        const collection = unique('c');
        const stranger = await bridge.client(`/ws?token=${token(secret, { userId: 'stranger', roles: ['guest'] })}`, { seen: watching('stranger') });
        const staff = await connect(bridge, 'staff');
        await staff.write('insert', collection, 'a', record('ana'));
        await staff.write('insert', collection, 'nobody', { mark: markOf('nobody') });
        const state = await stranger.subscribe(collection, { since: 0 });
        assert.deepEqual([state.recordCount, state.records.size, state.deleted.size, state.pages.at(-1).metadata.total], [0, 0, 0, 0]);
        await staff.write('update', collection, 'nobody', { n: 1 });
        await staff.write('delete', collection, 'nobody');
        await staff.write('delete', collection, 'a');
        assert.deepEqual(await upTo(stranger, 'stranger', collection, staff), []);
        assert.equal((await stranger.write('insert', 'open', unique('r'), {})).type, 'ack', 'where there is no rule');
    });

    test(`a record changes hands, ${how}`, async () => {
        const collection = unique('c');
        const [ana, bo, staff] = await Promise.all(['ana', 'bo', 'staff'].map((user) => connect(bridge, user)));
        const [ana2, device] = [await connect(bridge, 'ana'), await broker.client({ version: 5 })];
        for (const client of [ana, ana2, bo]) {
            await client.subscribe(collection);
        }
        await staff.write('insert', collection, 'r', record('ana', { a: 1, b: { c: [1.50] } }));
        for (const client of [ana, ana2]) {
            assert.deepEqual((await client.take('insert')).data, record('ana', { a: 1, b: { c: [1.5] } }));
        }
        // by staff
        await staff.write('update', collection, 'r', record('bo'));
        for (const client of [ana, ana2]) {
            const gone = await client.take('delete');
            assert.deepEqual([gone.recordId, gone.data, gone.metadata.version, gone.metadata.userId], ['r', undefined, 2, 'staff']);
        }
        const come = await bo.take('insert');
        assert.deepEqual([come.data, come.metadata.version], [record('bo', { a: 1, b: { c: [1.5] } }), 2]);
        // by its owner, who is told that it is gone
        assert.equal((await bo.write('update', collection, 'r', record('ana'))).type, 'ack');
        assert.deepEqual(brief([await bo.take('delete'), await ana.take('insert'), await ana2.take('insert')]),
            [['delete', 'r', 3], ['insert', 'r', 3], ['insert', 'r', 3]]);
        assert.equal((await bo.write('update', collection, 'r', { a: 2 })).code, 'UNAUTHORIZED');
        // by a device, with a member removed
        await device.short(collection, 'r', 'update', record('bo', { a: null }));
        assert.deepEqual(brief([await ana.take('delete'), await ana2.take('delete')]), [['delete', 'r', 4], ['delete', 'r', 4]]);
        const m = await bo.next();
        assert.deepEqual(m.data.records?.[0].data ?? m.data, record('bo', { b: { c: [1.5] } }));
        // to nobody
        await staff.write('update', collection, 'r', { ownerId: null, mark: markOf('nobody') });
        assert.deepEqual(brief([await bo.take('delete')]), [['delete', 'r', 5]]);
        await staff.write('update', collection, 'r', record('ana'));
        await staff.write('delete', collection, 'r');
        assert.deepEqual(brief(await upTo(ana, 'ana', collection, staff)), [['insert', 'r', 6], ['delete', 'r', 7]]);
        assert.deepEqual(brief(await upTo(bo, 'bo', collection, staff)), []);
    });

    test(`what happened meanwhile, ${how}`, async () => {
        const collection = unique('c');
        const [ana, staff] = [await connect(bridge, 'ana'), await connect(bridge, 'staff')];
        const ids = ['stays', 'changes', 'leaves', 'leavesAndChanges', 'leavesAndChangesLater', 'dies', 'returns'];
        for (const id of ids) {
            await staff.write('insert', collection, id, record('ana'));
        }
        await staff.write('insert', collection, 'comes', record('bo'));
        await staff.write('insert', collection, 'foreign', record('bo'));
        const before = await ana.subscribe(collection);
        assert.deepEqual([...before.records.keys()].sort(), [...ids].sort());
        await ana.close();
        await staff.write('update', collection, 'leavesAndChangesLater', record('bo'));
        await staff.write('update', collection, 'changes', { n: 1 });
        await staff.write('update', collection, 'leaves', record('bo'));
        await staff.write('update', collection, 'leavesAndChanges', record('bo'));
        await staff.write('update', collection, 'leavesAndChanges', { n: 1 });
        await staff.write('delete', collection, 'dies');
        await staff.write('delete', collection, 'foreign');
        await staff.write('update', collection, 'returns', record('bo'));
        await staff.write('update', collection, 'returns', record('ana'));
        await staff.write('update', collection, 'comes', record('ana'));
        await staff.write('update', collection, 'leavesAndChangesLater', { n: 1 });
        const back = await connect(bridge, 'ana');
        const since = await back.subscribe(collection, { since: before.seq, epoch: before.epoch });
        assert.deepEqual([...since.records.keys()].sort(), ['changes', 'comes', 'returns']);
        assert.deepEqual([...since.deleted.keys()].sort(), ['dies', 'leaves', 'leavesAndChanges', 'leavesAndChangesLater']);
        assert.deepEqual([since.recordCount, since.pages[0].metadata.full, since.pages[0].metadata.total], [4, false, 7]);
        // a page at a time, as a client does that asks again from where the last page ended
        const rest = { records: new Set(), deleted: new Set() };
        for (let [seq, more] = [before.seq, true]; more;) {
            back.send({ type: 'sync', collection, metadata: { since: seq, epoch: before.epoch, limit: 1 } });
            const page = await back.take('sync');
            page.data.records.forEach((r) => rest.records.add(r.id));
            page.data.deleted.forEach((r) => rest.deleted.add(r.id));
            ({ seq, more } = page.metadata);
        }
        assert.deepEqual([[...rest.records].sort(), [...rest.deleted].sort()],
            [['changes', 'comes', 'returns'], ['dies', 'leaves', 'leavesAndChanges', 'leavesAndChangesLater']]);
    });

    test(`a few among very many, ${how}`, async () => {
        const collection = unique('c');
        const [device, staff] = [await broker.client(), await connect(bridge, 'staff')];
        const writes = Array.from({ length: 5010 }, (_, i) => device.short(collection, `r${i}`, 'insert', record(i % 501 ? 'bo' : 'ana', { i })));
        await Promise.all(writes);
        await device.short(collection, 'r0', 'delete');
        await device.short(collection, 'r1', 'delete');
        const ana = await connect(bridge, 'ana');
        const all = await ana.subscribe(collection);
        assert.deepEqual([all.recordCount, all.records.size, all.pages[0].metadata.total], [9, 9, 9]);
        assert.equal((await (await connect(bridge, 'bo')).subscribe(collection)).records.size, 4999);
        ana.send({ type: 'sync', collection, metadata: { limit: 4 } });
        const limited = []; // the four may come in more than one page, since the bridge gives way in between
        for (let n = 0; n < 4; n += limited.at(-1).data.records.length) {
            limited.push(await ana.take('sync'));
        }
        const { seq, epoch, more, total } = limited.at(-1).metadata;
        assert.deepEqual([limited.flatMap((page) => page.data.records).length, total, more], [4, 4, true]);
        ana.send({ type: 'sync', collection, metadata: { since: seq, epoch } });
        assert.deepEqual([...(await ana.pages(collection)).records.keys()].length, 5);
        await staff.write('update', collection, 'r2', record('ana'));
        assert.equal((await ana.take('insert')).recordId, 'r2');
        ana.send({ type: 'subscribe', collection, metadata: { sync: false } });
        assert.equal((await ana.take('subscribed')).metadata.recordCount, 10);
        assert.deepEqual(await upTo(ana, 'ana', collection, staff), []);
    });

    test(`/ws/{collection}, ${how}`, async () => {
        const collection = unique('c');
        const staff = await connect(bridge, 'staff');
        for (const [id, user] of [['a', 'ana'], ['left', 'ana'], ['dead', 'ana'], ['b', 'bo'], ['deadToo', 'bo']]) {
            await staff.write('insert', collection, id, record(user));
        }
        await staff.write('update', collection, 'left', record('bo'));
        await staff.write('delete', collection, 'dead');
        await staff.write('delete', collection, 'deadToo');
        const ana = await connect(bridge, 'ana', `/ws/${collection}`);
        assert.equal((await ana.take('subscribed')).metadata.recordCount, 1);
        assert.deepEqual((await ana.take('sync')).data.records.map((r) => r.id), ['a']);
        const dropped = [await ana.take('delete'), await ana.take('delete')].map((m) => m.recordId);
        assert.deepEqual(dropped.sort(), ['dead', 'left']);
        const replica = new Replica(collection, { full: true });
        replica.records.set('a', { version: 1, data: record('ana') });
        const follow = async () => {
            (await upTo(ana, 'ana', collection, staff)).forEach((m) => replica.take(m));
            return replica.list();
        };
        await staff.write('update', collection, 'a', { n: 1 });
        await staff.write('update', collection, 'b', record('ana', { n: 2 }));
        assert.deepEqual(await follow(), [['a', 2, record('ana', { n: 1 })], ['b', 2, record('ana', { n: 2 })]]);
        await staff.write('update', collection, 'b', record('bo'));
        assert.deepEqual(await follow(), [['a', 2, record('ana', { n: 1 })]]);
        // her own: the change is not told, the loss is
        assert.equal((await ana.write('update', collection, 'a', { n: 2 })).type, 'ack');
        assert.equal((await ana.write('update', collection, 'a', record('bo'))).type, 'ack');
        assert.deepEqual(await follow(), []);
    });

    test(`the rules change, ${how}`, async () => {
        const turned = await start({}, { database: how === 'reading the database' });
        const collection = unique('c');
        const staff = await connect(bridge, 'staff');
        await staff.write('insert', collection, 'a', record('ana'));
        await staff.write('insert', collection, 'b', { ownerId: 'bo', keeper: 'ana' });
        const ana = await turned.client(`/ws?token=${jwt('ana')}`);
        assert.deepEqual([...(await ana.subscribe(collection)).records.keys()], ['a']);
        const anew = async (what, ids) => {
            const { records, pages } = await ana.pages(collection);
            assert.deepEqual([[...records.keys()].sort(), pages[0].metadata.full, pages[0].metadata.total], [ids, true, ids.length], what);
            await staff.write('update', collection, 'b', { n: what });
            if (ids.includes('b')) {
                assert.deepEqual((await ana.take('update')).data, { n: what });
            }
            await staff.write('update', collection, 'a', { n: what, keeper: ids.includes('a') ? 'ana' : null });
            if (ids.includes('a')) {
                await ana.take({ type: 'update', recordId: 'a' });
            }
        };
        // by a token with another role
        ana.send({ type: 'auth', token: jwt('ana', { roles: ['staff'] }) });
        await ana.take('authenticated');
        await anew('staff', ['a', 'b']);
        ana.send({ type: 'auth', token: jwt('ana') });
        await ana.take('authenticated');
        await anew('no staff any more', ['a']);
        ana.send({ type: 'auth', token: jwt('ana') });
        await ana.take('authenticated');
        assert.deepEqual(await upTo(ana, 'ana', collection, staff), [], 'nothing has changed');
        if (how !== 'reading the database') {
            return; // there the plugin decides, whose rules stay
        }
        // by the configuration
        const reload = async (rule) => {
            const from = turned.log.length;
            turned.write({ ...config, collections: { '*': rule } });
            turned.process.kill('SIGHUP');
            await turned.waitForLog(/MQS3003/, from);
        };
        await reload({ ...owned, owner: 'keeper' });
        const { records } = await ana.pages(collection);
        assert.deepEqual([...records.keys()].sort(), ['a', 'b']);
        await reload({ ...owned, owner: undefined });
        assert.equal((await ana.take('error')).code, 'UNAUTHORIZED');
    });

    test(`a reader that does not read, ${how}`, async () => {
        const tight = await start({ bridge: { sendQueueBytes: 100_000 } }, { database: how === 'reading the database' });
        const collection = unique('c');
        const [device, staff] = [await broker.client(), await connect(tight, 'staff')];
        const slow = await connect(tight, 'ana', '/ws', { perMessageDeflate: false });
        const replica = new Replica(collection);
        await slow.subscribe(collection);
        slow.socket.pause();
        const text = 'x'.repeat(20_000);
        for (let i = 0; i < 600; i++) {
            await device.short(collection, `r${i % 7}`, 'insert', record(i % 3 ? 'ana' : 'bo', { i, text }));
        }
        await poll(async () => await tight.metric('collapses_total') > 0, 'a collapse');
        await device.short(collection, 'r1', 'delete');
        slow.socket.resume();
        (await upTo(slow, 'ana', collection, staff)).forEach((m) => replica.take(m));
        assert.deepEqual(replica.list(), heldFor(collection, 'ana').filter(([id]) => id.startsWith('r')));
    });
}

for (const database of [true, false]) {
    test(`while the bridge was cut off, ${database ? 'reading the database' : 'reading through the broker'}`, async (t) => {
        const other = await Broker.start({ config: { collections, trustedUsers } });
        t.after(() => other.stop());
        const bridge = await new Bridge(other, config, { database }).start();
        t.after(() => bridge.stop());
        const collection = unique('c');
        const [ana, app] = [await connect(bridge, 'ana'), await connect(bridge, 'ana', `/ws/${collection}`)];
        const staff = await connect(bridge, 'staff');
        for (const id of ['stays', 'leaves', 'leavesAndChanges', 'dies']) {
            await staff.write('insert', collection, id, record('ana'));
        }
        await staff.write('insert', collection, 'comes', record('bo'));
        const replicas = [new Replica(collection), new Replica(collection, { full: true })];
        ana.send({ type: 'subscribe', collection });
        const follow = async () => {
            for (const [i, client] of [ana, app].entries()) {
                (await upTo(client, 'ana', collection, staff)).forEach((m) => replicas[i].take(m));
                assert.deepEqual([...replicas[i].records.keys()].filter((id) => !id.startsWith('end')).sort(), wanted, `${i}`);
            }
        };
        let wanted = ['dies', 'leaves', 'leavesAndChanges', 'stays'];
        await follow();
        const mark = bridge.log.length;
        bridge.process.kill('SIGSTOP');
        await other.terminate();
        await other.start();
        const device = await other.client();
        await device.short(collection, 'leaves', 'update', record('bo'));
        await device.short(collection, 'leavesAndChanges', 'update', record('bo'));
        await device.short(collection, 'leavesAndChanges', 'update', { n: 1 });
        await device.short(collection, 'dies', 'delete');
        await device.short(collection, 'comes', 'update', record('ana'));
        bridge.process.kill('SIGCONT');
        await bridge.waitForLog(/MQS3010/, mark);
        wanted = ['comes', 'stays'];
        await follow();
        await device.short(collection, 'comes', 'update', record('bo'));
        await device.short(collection, 'leaves', 'update', record('ana'));
        wanted = ['leaves', 'stays'];
        await follow();
    });
}

test('an event that does not say whose the record is, and one that lies', async (t) => {
    // the plugin of this broker knows of no owners
    const plain = await Broker.start({ config: { collections: { '*': {} }, trustedUsers } });
    t.after(() => plain.stop());
    const bridge = await new Bridge(plain, config).start();
    t.after(() => bridge.stop());
    const collection = unique('c');
    const [ana, staff] = [await connect(bridge, 'ana'), await connect(bridge, 'staff')];
    const liar = await plain.client({ version: 5 });
    await ana.subscribe(collection);
    const lie = (userProperties) => ({ properties: { userProperties } });
    await liar.short(collection, 'b', 'insert', record('bo'));
    await liar.short(collection, 'a', 'insert', record('ana'));
    const m = await ana.next();
    assert.deepEqual((m.data.records ?? [{ id: m.recordId }]).map((r) => r.id), ['a']);
    await liar.short(collection, 'b', 'update', record('bo', { n: 1 }), lie({ owner: ['ana', 'ana'] }));
    await liar.short(collection, 'b', 'update', record('bo', { n: 2 }), lie({ owner: ['bo', 'ana'] }));
    assert.deepEqual(brief(await upTo(ana, 'ana', collection, staff)), []);
    // and where it knows of them, what others say does not count
    const there = await connect(bridges['reading the database'], 'ana');
    const writer = await connect(bridges['reading the database'], 'staff');
    const device = await broker.client({ version: 5 });
    await there.subscribe(collection);
    await device.short(collection, 'b', 'insert', record('bo'), lie({ owner: 'ana' }));
    await device.short(collection, 'b', 'update', { n: 1 }, lie({ owner: 'ana', formerOwner: 'ana' }));
    await device.short(collection, 'c', 'insert', { mark: markOf('nobody') }, lie({ owner: 'ana' }));
    assert.deepEqual(brief(await upTo(there, 'ana', collection, writer)), []);
});

test('errors of the plugin are counted', async () => {
    const bridge = bridges['reading the database'];
    const staff = await connect(bridge, 'staff');
    const count = async () => {
        const { text } = await bridge.get('/metrics');
        return Number(/errors_total\{code="RECORD_NOT_FOUND"\} (\d+)/.exec(text)[1]);
    };
    const before = await count();
    assert.equal((await staff.write('update', unique('c'), 'nothing', {})).code, 'RECORD_NOT_FOUND');
    assert.equal(await count(), before + 1);
});

// --- everybody at once ----------------------------------------------------------------------------------------------

const users = ['ana', 'bo', 'cy'];

/** What somebody might do to one of a few records. Whoever gives a record to somebody else gives it his mark. */
function anyWrite(pick, collection, self) {
    const recordId = `r${pick(30)}`;
    const owner = self ?? [...users, 'nobody'][pick(4)];
    const given = record([...users][pick(3)], pick(2) ? { gift: pick(1000) } : { gift: null, n: null });
    switch (pick(8)) {
    case 0:
        return { type: 'delete', collection, recordId };
    case 1:
    case 2:
        return { type: 'update', collection, recordId, data: given };
    case 3:
    case 4:
        return { type: 'insert', collection, recordId, data: record(owner, { n: pick(1000), text: 'x'.repeat(pick(3000)) }) };
    default:
        return { type: 'update', collection, recordId, data: { n: pick(1000), [`k${pick(5)}`]: pick(3) ? pick(9) : null } };
    }
}

/** Reads one user's records on a connection that is now and then lost, or not read from. */
class Reader {
    constructor(bridge, user, collection, { full, slow, since }) {
        Object.assign(this, { bridge, user, collection, full, slow, since });
        this.replica = new Replica(collection, { full });
        this.problems = [];
    }

    async open() {
        const watch = watching(this.user);
        const client = await this.bridge.client(`/ws${this.full ? `/${this.collection}` : ''}?token=${jwt(this.user)}`, {
            perMessageDeflate: !this.slow,
            seen: (text) => {
                watch(text);
                try {
                    if (client === this.client || !this.client) {
                        this.replica.take(JSON.parse(text));
                    }
                } catch (error) {
                    this.problems.push(`${this.user}: ${error.message}: ${text.slice(0, 300)}`);
                }
            },
        });
        this.client = client;
        if (!this.full) {
            const { seq, epoch } = this.replica;
            const metadata = this.since && seq !== undefined ? { metadata: { since: seq, epoch } } : {};
            client.send({ type: 'subscribe', collection: this.collection, ...metadata });
        }
    }

    async disturb(pick) {
        if (this.slow && pick(3)) {
            this.client.socket[this.client.socket.isPaused ? 'resume' : 'pause']();
            return;
        }
        this.client.socket.terminate();
        await this.client.waitClosed();
        await this.open();
    }

    async caughtUp(id) {
        this.client.socket.resume();
        await this.client.waiters.until(() => this.replica.records.has(id),
            () => `${id} at ${this.user}'s (${JSON.stringify({ full: this.full, slow: this.slow, since: this.since })})`);
    }
}

test('everybody writes and reads at once; each has exactly his own in the end', async () => {
    const pick = randomness(seed);
    const collection = unique('c');
    const tight = { bridge: { sendQueueBytes: 50_000 } };
    const both = [await start(tight), await start(tight, { database: false })];
    const readers = [];
    for (const bridge of both) {
        for (const user of users) {
            for (const kind of [{}, { since: true }, { full: true }, { slow: true, since: true }]) {
                readers.push(new Reader(bridge, user, collection, kind));
            }
        }
    }
    await Promise.all(readers.map((reader) => reader.open()));
    const writers = [];
    for (const bridge of both) {
        for (const user of [...users, 'staff']) {
            const client = await connect(bridge, user);
            writers.push((m) => client.write(m.type, m.collection, m.recordId, m.data));
            writers.at(-1).user = user === 'staff' ? undefined : user;
        }
    }
    for (const version of [4, 5]) {
        const device = await broker.client({ version });
        writers.push((m) => device.cmd(collection, m), (m) => device.write('short', m));
    }
    const staff = await connect(both[0], 'staff');
    for (let round = 0; round < 150; round++) {
        await Promise.all(writers.map((write) => write(anyWrite(pick, collection, write.user))));
        if (round % 3 === 0) {
            await readers[pick(readers.length)].disturb(pick);
        }
    }
    for (const user of users) {
        assert.equal((await staff.write('insert', collection, `end-${user}`, record(user))).type, 'ack');
    }
    await Promise.all(readers.map((reader) => reader.caughtUp(`end-${reader.user}`)));
    assert.deepEqual(readers.flatMap(({ problems }) => problems), [], `MQSYNC_SEED=${seed}`);
    for (const { user, replica, client, full, slow, since } of readers) {
        const held = heldFor(collection, user);
        // to /ws/{collections} the deletions come after the records
        await client.waiters.until(() => isDeepStrictEqual(replica.list(), held), () => '').catch(() => {});
        assert.deepEqual(replica.list(), held, `MQSYNC_SEED=${seed} ${JSON.stringify({ user, full, slow, since })}`);
    }
});
