// SPDX-License-Identifier: BSD-3-Clause
// The write rule once more, from the contract and docs/protocol.md alone, as plainly as it can be said: what a write makes of
// one record. For data that JavaScript's own numbers hold.
import { isDeepStrictEqual as same } from 'node:util';

const COPY_MS = 2000;
const TIME_OF = '_updatedAt';
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What an `update` makes of the data. */
export function withDelta(data, delta) {
    const result = { ...data, ...delta };
    Object.keys(delta).filter((key) => delta[key] === null).forEach((key) => delete result[key]);
    return result;
}

// --- strategies: (stored, sent, {older, type}) -> data

const union = (a, b) => [...a, ...b].filter((x, i, all) => all.findIndex((y) => same(x, y)) === i);
const areNumbers = (a, b) => typeof a === 'number' && typeof b === 'number';
const areArrays = (a, b) => Array.isArray(a) && Array.isArray(b);

const listed = (fields, fit, combine) => (stored, sent) => {
    const fitting = fields.filter((field) => fit(sent[field], stored[field]));
    return { ...stored, ...Object.fromEntries(fitting.map((field) => [field, combine(sent[field], stored[field])])) };
};

function deepMerge(stored, sent) {
    const result = { ...stored };
    for (const [key, value] of Object.entries(sent)) {
        const have = stored[key];
        if (have === undefined) {
            result[key] = value;
        } else if (isObject(have) && isObject(value)) {
            result[key] = deepMerge(have, value);
        } else if (areArrays(have, value)) {
            result[key] = union(value, have);
        }
    }
    return result;
}

function fieldByField(stored, sent, { older, type }) {
    const result = { ...stored };
    if (type === 'insert' && !older) { // it says of each field that it lacks that it is gone
        Object.keys(stored).filter((key) => !(key in sent)).forEach((key) => delete result[key]);
    }
    for (const [key, value] of Object.entries(sent).filter(([k]) => !k.endsWith(TIME_OF))) {
        const [mine, theirs] = [sent[key + TIME_OF], stored[key + TIME_OF]];
        if (mine !== undefined && theirs !== undefined ? Date.parse(mine) > Date.parse(theirs) : !older) {
            Object.assign(result, { [key]: value }, mine === undefined ? {} : { [key + TIME_OF]: mine });
        }
    }
    return result;
}

const MERGES = {
    mergeArrays: (fields) => listed(fields, areArrays, union),
    sumNumbers: (fields) => listed(fields, areNumbers, (a, b) => a + b),
    maxValue: (fields) => listed(fields, areNumbers, Math.max),
    mergeFields: (fields) => listed(fields, (sent) => sent !== undefined, (sent) => sent),
    fieldLevelLastWriteWins: () => fieldByField,
    deepMerge: () => deepMerge,
};

// --- the rule

const sameContent = (a, b) => a.user === b.user && same(a.data, b.data) && (a.type === 'delete') === (b.type === 'delete');

/**
 * One record. A write: {type, data, user, unbound, mutationId, baseVersion, ifVersion, time, sentTime, zoned}; unbound: the
 * owner's rule does not bind it; time in milliseconds, Infinity being the moment of arrival; sentTime: what its text says.
 */
export class ReferenceRecord {
    constructor({ conflict: { strategy = 'lastWriteWins', fields = [] } = {}, upsert = false, owner } = {}) {
        Object.assign(this, { strategy, fields, upsert, owner });
        Object.assign(this, { data: undefined, version: 0, updatedAt: -Infinity, changes: [], owners: new Set() });
    }

    /** The change that this write is a copy of. */
    #original(w) {
        const named = w.mutationId !== undefined && this.changes.find((c) => c.mutationId === w.mutationId);
        if (named) {
            return named;
        }
        const alike = (c) => sameContent(c, w) && c.zoned === w.zoned && Math.abs(c.sentTime - w.sentTime) <= COPY_MS;
        const last = this.changes.at(-1);
        if (last && w.mutationId === undefined && alike(last) && last.type === w.type && last.sentTime === w.sentTime) {
            return last;
        }
        return this.changes.findLast((c) => alike(c) && (c.mutationId === undefined || w.mutationId === undefined)
            && !(w.ifVersion >= c.version) && !this.#cameBackTo(c, w));
    }

    /** On, off, on again: the same user, who has a name, changed it to something else in between. */
    #cameBackTo(first, w) {
        const last = this.changes.at(-1);
        return w.user !== null && last.user === w.user && !sameContent(last, w) && last.zoned === w.zoned
            && last.sentTime > first.sentTime && last.sentTime <= w.sentTime;
    }

    /** His own he may change and give away; a new one has to name him. */
    #mayWrite(w) {
        return !this.owner || w.unbound || (w.user !== null && (this.data ?? w.data)[this.owner] === w.user);
    }

    #isConflict(w) {
        if (w.baseVersion !== undefined) {
            return this.version > 0 && w.baseVersion !== this.version;
        }
        return w.time < this.updatedAt && !w.ifVersion;
    }

    /** Carries it out: {copy: change} | {error, version?} | {lost} | {event, change, merged}. */
    write(w) {
        const copy = this.#original(w);
        if (copy) { // that it is one by its name alone tells a stranger nothing
            const known = sameContent(copy, w) || !this.owner || w.unbound || this.data?.[this.owner] === w.user;
            return known ? { copy } : { error: 'UNAUTHORIZED' };
        }
        if (this.data && !this.#mayWrite(w)) {
            return { error: 'UNAUTHORIZED' };
        }
        const current = this.data ? this.version : 0;
        if (w.ifVersion !== undefined && w.ifVersion !== current) {
            return { error: 'CONFLICT', version: current };
        }
        if (!this.data && (w.type === 'delete' || (w.type === 'update' && !this.upsert))) {
            return { error: 'RECORD_NOT_FOUND' };
        }
        return this.#mayWrite(w) ? this.#decide(w) : { error: 'UNAUTHORIZED' };
    }

    #decide(w) {
        const older = w.time < this.updatedAt;
        const conflict = this.#isConflict(w);
        const merge = MERGES[this.strategy]?.(this.fields);
        const merged = Boolean(conflict && merge && this.data && w.type !== 'delete');
        const wins = this.strategy === 'clientWins' || (this.strategy !== 'serverWins' && !older);
        if (conflict && !merged && !wins) {
            const maySee = this.data || !this.owner || w.unbound || this.owners.has(w.user);
            return maySee ? { lost: true } : { error: 'CONFLICT', version: this.version };
        }
        const data = merged ? this.#merge(merge, w, older) : this.#replace(w);
        return merged && same(data, this.data) ? { lost: true } : this.#accept(w, data, merged);
    }

    #merge(merge, w, older) {
        const data = merge(this.data, w.data, { older, type: w.type });
        const nulls = Object.entries(data).filter(([, value]) => value === null);
        return w.type === 'update' ? withDelta(data, Object.fromEntries(nulls)) : data;
    }

    #replace(w) {
        return w.type === 'update' ? withDelta(this.data ?? {}, w.data) : w.data;
    }

    #accept(w, data, merged) {
        const event = w.type === 'delete' ? 'delete' : this.data ? 'update' : 'insert';
        const change = { ...w, version: ++this.version };
        this.data = data;
        this.updatedAt = Math.max(this.updatedAt, w.time);
        this.changes.push(change);
        this.owners.add(data?.[this.owner]);
        return { event, change, merged };
    }
}
