export declare const PEERS: Readonly<Record<'versitygw' | 'minio', { readonly module: string; readonly minutes: number }>>;
export declare function peerPath(name: keyof typeof PEERS): string;
export declare function ensurePeer(name: keyof typeof PEERS): { readonly binary: string } | { readonly missing: string };
