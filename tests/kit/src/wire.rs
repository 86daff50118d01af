//! Protobuf messages without their types: enough to make a small resource, or to change a recorded one in one place and
//! leave all else be.

use anyhow::{Context, Result, bail, ensure};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// A message as its fields, in order.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<(u32, Value)>);

/// The value of a field, by its wire type.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number, a bool or an enum.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Four bytes.
    Fixed32([u8; 4]),
    /// A string, bytes or a message.
    Bytes(Vec<u8>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Varint(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

impl<const N: usize> From<[(u32, Self); N]> for Value {
    fn from(message: [(u32, Self); N]) -> Self {
        Self::Bytes(Message(message.into()).encode())
    }
}

impl Message {
    /// Takes a message apart.
    pub fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let (number, kind) = decode_key(&mut bytes)?;
            let value = match kind {
                WireType::Varint => Value::Varint(decode_varint(&mut bytes)?),
                WireType::SixtyFourBit => Value::Fixed64(
                    *bytes
                        .split_first_chunk()
                        .map(|(head, tail)| {
                            bytes = tail;
                            head
                        })
                        .context("cut short")?,
                ),
                WireType::ThirtyTwoBit => Value::Fixed32(
                    *bytes
                        .split_first_chunk()
                        .map(|(head, tail)| {
                            bytes = tail;
                            head
                        })
                        .context("cut short")?,
                ),
                WireType::LengthDelimited => {
                    let length = usize::try_from(decode_varint(&mut bytes)?)?;
                    ensure!(length <= bytes.len(), "cut short");
                    let (head, tail) = bytes.split_at(length);
                    bytes = tail;
                    Value::Bytes(head.to_vec())
                }
                WireType::StartGroup | WireType::EndGroup => bail!("groups are not of proto3"),
            };
            fields.push((number, value));
        }
        Ok(Self(fields))
    }

    /// Puts it together again.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, value) in &self.0 {
            match value {
                Value::Varint(varint) => {
                    encode_key(*number, WireType::Varint, &mut out);
                    encode_varint(*varint, &mut out);
                }
                Value::Fixed64(raw) => {
                    encode_key(*number, WireType::SixtyFourBit, &mut out);
                    out.extend_from_slice(raw);
                }
                Value::Fixed32(raw) => {
                    encode_key(*number, WireType::ThirtyTwoBit, &mut out);
                    out.extend_from_slice(raw);
                }
                Value::Bytes(bytes) => {
                    encode_key(*number, WireType::LengthDelimited, &mut out);
                    encode_varint(bytes.len() as u64, &mut out);
                    out.extend_from_slice(bytes);
                }
            }
        }
        out
    }

    /// Puts a string, bytes or an encoded message before all other fields of its number.
    pub fn prepend(&mut self, number: u32, bytes: impl Into<Vec<u8>>) {
        self.0.insert(0, (number, Value::Bytes(bytes.into())));
    }

    /// The first value of a field as bytes.
    pub fn bytes(&self, number: u32) -> Option<&[u8]> {
        self.0.iter().find_map(|(field, value)| match value {
            Value::Bytes(bytes) if *field == number => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// Changes every message at the end of `path`, each step of it a field that holds messages.
    pub fn edit(&mut self, path: &[u32], change: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let Some((number, rest)) = path.split_first() else {
            return change(self);
        };
        for (_, value) in self.0.iter_mut().filter(|(field, _)| field == number) {
            if let Value::Bytes(bytes) = value {
                let mut message = Self::parse(bytes)?;
                message.edit(rest, change)?;
                *bytes = message.encode();
            }
        }
        Ok(())
    }
}
