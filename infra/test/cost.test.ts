/** What a stage costs while nobody asks: docs/COST.md says it, and the templates as they are decide. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { idle, type Line, total } from '../cost.ts';
import { ROOT } from '../lib/bundles.ts';
import { stageNamed } from './synthesised.ts';

/** Whole dollars: `| `dev` | 11 | …` */
const said = new Map([...readFileSync(path.join(ROOT, 'docs', 'COST.md'), 'utf8').matchAll(/^\| `(\w+)` \| ([\d.]+) \|/gm)].map(([, name = '', usd]) => [name, Number(usd)]));
const of = (name: string): readonly Line[] => idle(stageNamed(name).resources);

describe('an idle month', () => {
  test('is what docs/COST.md says', () => {
    for (const name of ['dev', 'prod']) expect([name, Math.round(total(of(name)))]).toEqual([name, said.get(name)]);
  });

  test('of a stage without endpoints is a few dollars, none of them for a machine', () => {
    expect(total(of('dev'))).toBeLessThan(15);
    for (const { what } of of('dev')) expect(what).not.toMatch(/EC2|ECS|LoadBalancer/);
  });

  test('of prod is for its endpoints first, which public access would save', () => {
    const [{ what, usdPerMonth }] = of('prod') as [Line];
    expect(what).toBe('AWS::EC2::VPCEndpoint');
    expect(total(of('prod')) - usdPerMonth).toBeLessThan(30);
  });

  test('has load balancer and tasks of an API on Fargate, which is never idle', () => {
    const names = of('other').map(({ what }) => what);
    expect(names).toEqual(expect.arrayContaining(['AWS::ElasticLoadBalancingV2::LoadBalancer', 'AWS::ECS::Service']));
  });
});
