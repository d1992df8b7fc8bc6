// CRC-32C (every path that this machine has), BLAKE3 and AES-256-GCM against their published vectors.
#include "checkpoint/digest.h"

#include "checkpoint/crc32c.h"
#include "checkpoint/frame_crypto.h"
#include "test/check.h"
#include "test/object_fixtures.h"

namespace rum::test {
namespace {

Bytes FromHex(const std::string& hex) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

template <class F>
void ForEachWay(const F& f) {
  for (const Crc32cWay& way : Crc32cWays()) {
    if (!way.runs_here()) continue;
    f([&](const Bytes& bytes) { return ~way.update(~0u, bytes.data(), static_cast<int64_t>(bytes.size())); });
  }
}

void Crc32cIsThatOfRfc3720() {
  Bytes up(32), down(32);
  for (uint8_t i = 0; i < 32; ++i) up[i] = i, down[i] = static_cast<uint8_t>(31 - i);
  const Bytes scsi_read = FromHex("01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000");
  ForEachWay([&](const auto& crc) {
    // RFC 3720 B.4; the last is the check value of the catalogue of CRCs.
    CHECK(crc(Bytes(32, 0)) == 0x8a9136aa);
    CHECK(crc(Bytes(32, 0xff)) == 0x62a8ab43);
    CHECK(crc(up) == 0x46dd794e);
    CHECK(crc(down) == 0x113fdb5c);
    CHECK(crc(scsi_read) == 0xd9963a56);
    CHECK(crc({'1', '2', '3', '4', '5', '6', '7', '8', '9'}) == 0xe3069283);
  });
}

void EveryWayGivesTheSameCrc() {
  const Bytes noise = Noise(20000, 1);
  const auto slowest = Crc32cWays().back();
  for (const Crc32cWay& way : Crc32cWays()) {
    if (!way.runs_here()) continue;
    for (int64_t bytes = 0; bytes < 1100; ++bytes) CHECK(way.update(1, &noise[1], bytes) == slowest.update(1, &noise[1], bytes));
    for (const int64_t bytes : {3071, 3072, 3073, 6144, 6400, 19993}) CHECK(way.update(~0u, &noise[7], bytes) == slowest.update(~0u, &noise[7], bytes));
  }
  for (size_t at = 0; at <= noise.size(); at += 997) {
    const std::span<const uint8_t> all(noise);
    CHECK(Crc32c(all.subspan(at), Crc32c(all.first(at))) == Crc32c(all));
  }
}

struct Blake3Vector {
  size_t input_bytes;
  const char *hash, *keyed, *derived;
};

// From BLAKE3's test_vectors/test_vectors.json, the first 32 bytes: its lengths around a block, a chunk and the widths of its paths.
constexpr Blake3Vector kBlake3Vectors[] = {
    {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
     "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
     "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d"},
    {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
     "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
     "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c"},
    {63, "e9bc37a594daad83be9470df7f7b3798297c3d834ce80ba85d6e207627b7db7b",
     "bb1eb5d4afa793c1ebdd9fb08def6c36d10096986ae0cfe148cd101170ce37ae",
     "b6451e30b953c206e34644c6803724e9d2725e0893039cfc49584f991f451af3"},
    {64, "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98",
     "ba8ced36f327700d213f120b1a207a3b8c04330528586f414d09f2f7d9ccb7e6",
     "a5c4a7053fa86b64746d4bb688d06ad1f02a18fce9afd3e818fefaa7126bf73e"},
    {65, "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee",
     "c0a4edefa2d2accb9277c371ac12fcdbb52988a86edc54f0716e1591b4326e72",
     "51fd05c3c1cfbc8ed67d139ad76f5cf8236cd2acd26627a30c104dfd9d3ff8a8"},
    {1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
     "c951ecdf03288d0fcc96ee3413563d8a6d3589547f2c2fb36d9786470f1b9d6e",
     "74a16c1c3d44368a86e1ca6df64be6a2f64cce8f09220787450722d85725dea5"},
    {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
     "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
     "7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a689684302706"},
    {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
     "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69",
     "effaa245f065fbf82ac186839a249707c3bddf6d3fdda22d1b95a3c970379bcb"},
    {2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
     "9f29700902f7c86e514ddc4df1e3049f258b2472b6dd5267f61bf13983b78dd5",
     "2ea477c5515cc3dd606512ee72bb3e0e758cfae7232826f35fb98ca1bcbdf273"},
    {8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b",
     "954a2a75420c8d6547e3ba5b98d963e6fa6491addc8c023189cc519821b4a1f5",
     "af1e0346e389b17c23200270a64aa4e1ead98c61695d917de7d5b00491c9b0f1"},
    {31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
     "efa53b389ab67c593dba624d898d0f7353ab99e4ac9d42302ee64cbf9939a419",
     "39772aef80e0ebe60596361e45b061e8f417429d529171b6764468c22928e28e"},
    {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
     "1c35d1a5811083fd7119f5d5d1ba027b4d01c0c6c49fb6ff2cf75393ea5db4a7",
     "4652cff7a3f385a6103b5c260fc1593e13c778dbe608efb092fe7ee69df6e9c6"},
};

void Blake3IsThatOfItsVectors() {
  Key key;
  std::memcpy(key.data(), "whats the Elvish word for friend", key.size());
  for (const Blake3Vector& vector : kBlake3Vectors) {
    Bytes input(vector.input_bytes);
    for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<uint8_t>(i % 251);
    const auto hex_is = [&](const char* want, const auto& finish) {
      Bytes out(32);
      finish(out);
      CHECK(out == FromHex(want));
    };
    for (const size_t piece : {input.size() + 1, size_t{1000}, size_t{4096}}) {
      hex_is(vector.keyed, [&](Bytes& out) {
        Hasher hasher(&key);
        for (size_t at = 0; at < input.size(); at += piece) hasher.Update(std::span(input).subspan(at, std::min(piece, input.size() - at)));
        hasher.Finish(out);
      });
    }
    const auto plain = [&](blake3_hasher* hasher, Bytes& out) {
      blake3_hasher_update(hasher, input.data(), input.size());
      blake3_hasher_finalize(hasher, out.data(), out.size());
    };
    blake3_hasher hasher;
    hex_is(vector.hash, [&](Bytes& out) { blake3_hasher_init(&hasher), plain(&hasher, out); });
    hex_is(vector.derived, [&](Bytes& out) {
      blake3_hasher_init_derive_key(&hasher, "BLAKE3 2019-12-27 16:29:52 test vectors context"), plain(&hasher, out);
    });
  }
}

struct GcmVector {
  const char *key, *nonce, *authenticated, *plain, *cipher, *tag;
};

// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 16: the AES-256 ones with nonces of 96 bits that NIST took over.
constexpr GcmVector kGcmVectors[] = {
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "00000000000000000000000000000000",
     "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

void AesGcmIsThatOfItsVectors() {
  for (const GcmVector& vector : kGcmVectors) {
    Key key;
    GcmNonce nonce;
    GcmTag want_tag;
    const Bytes key_bytes = FromHex(vector.key), nonce_bytes = FromHex(vector.nonce), tag_bytes = FromHex(vector.tag);
    std::copy(key_bytes.begin(), key_bytes.end(), key.begin());
    std::copy(nonce_bytes.begin(), nonce_bytes.end(), nonce.begin());
    std::copy(tag_bytes.begin(), tag_bytes.end(), want_tag.begin());
    const Bytes authenticated = FromHex(vector.authenticated), plain = FromHex(vector.plain), cipher = FromHex(vector.cipher);
    for (const size_t piece : {size_t{1}, size_t{17}, size_t{64}}) {
      const auto stream = [&](GcmStream& gcm, const Bytes& from) {
        Bytes to = from;
        for (size_t at = 0; at < to.size(); at += piece) CHECK_OK(gcm.Update(std::span(to).subspan(at, std::min(piece, to.size() - at)), &to[at]));
        return to;
      };
      GcmStream encrypt, decrypt, tampered;
      GcmTag tag{};
      if (!CHECK_OK(encrypt.Start(GcmStream::Direction::kEncrypt, key, nonce, authenticated))) return;
      CHECK(stream(encrypt, plain) == cipher);
      CHECK(encrypt.FinishEncrypt(&tag).ok() && tag == want_tag);
      CHECK_OK(decrypt.Start(GcmStream::Direction::kDecrypt, key, nonce, authenticated));
      CHECK(stream(decrypt, cipher) == plain && decrypt.FinishDecrypt(tag));
      CHECK_OK(tampered.Start(GcmStream::Direction::kDecrypt, key, nonce, authenticated));
      (void)stream(tampered, cipher);
      tag[15] ^= 1;
      CHECK(!tampered.FinishDecrypt(tag));
    }
  }
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"CRC-32C is that of RFC 3720", Crc32cIsThatOfRfc3720},
      {"every way to compute it gives the same, in one go or in parts", EveryWayGivesTheSameCrc},
      {"BLAKE3 is that of its vectors: plain, keyed, derived, whole and in pieces", Blake3IsThatOfItsVectors},
      {"AES-256-GCM is that of its vectors, in place and in pieces, and finds a wrong tag", AesGcmIsThatOfItsVectors},
  });
}
