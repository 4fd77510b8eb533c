//! What is written is what is read.

use std::io::Cursor;

use brigade_gguf::testing::{layout_bytes, to_bytes};
use brigade_gguf::{
    Array, Builder, GgmlType, GgufError, Header, NewTensor, TensorData, Text, Value, ValueType,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Value::String(Text(bytes))),
    ]
}

fn array() -> impl Strategy<Value = Value> {
    prop_oneof![
        vec(any::<u32>(), 0..20).prop_map(|v| Array::of_u32(&v)),
        vec(any::<i32>(), 0..20).prop_map(|v| Array::of_i32(&v)),
        vec(any::<f32>(), 0..20).prop_map(|v| Array::of_f32(&v)),
        vec(any::<bool>(), 0..20).prop_map(|v| Array::of_bool(&v)),
        vec(vec(any::<u8>(), 0..9), 0..20).prop_map(|v| Array::of_text(&v)),
    ]
    .prop_map(Value::Array)
}

fn data() -> impl Strategy<Value = (GgmlType, Vec<u64>, bool)> {
    let types: Vec<_> = GgmlType::all().collect();
    let shape = (1u64..3, vec(1u64..4, 0..4));
    (proptest::sample::select(types), shape, any::<bool>()).prop_map(
        |(ggml_type, (blocks, rest), zeros)| {
            let mut dims = vec![blocks * ggml_type.block_elements()];
            dims.extend(rest.into_iter().take(3));
            (ggml_type, dims, zeros)
        },
    )
}

proptest! {
    #[test]
    fn a_file_comes_back_as_it_was(
        values in vec(prop_oneof![scalar(), array()], 0..12),
        tensors in vec(data(), 0..8),
        alignment in proptest::option::of(0u32..10),
    ) {
        let mut builder = Builder::new();
        if let Some(power) = alignment {
            builder.set("general.alignment", Value::U32(1 << power));
        }
        for (index, value) in values.iter().enumerate() {
            builder.set(&format!("key.{index}"), value.clone());
        }
        let mut contents = Vec::new();
        for (index, (ggml_type, dims, zeros)) in tensors.iter().enumerate() {
            let len = ggml_type.tensor_bytes(dims).unwrap() as usize;
            let bytes: Vec<u8> = if *zeros {
                vec![0; len]
            } else {
                (0..len).map(|at| (at * 7 + index) as u8).collect()
            };
            builder.tensor(NewTensor {
                name: format!("tensor.{index}"),
                dims: dims.clone(),
                ggml_type: *ggml_type,
                data: if *zeros { TensorData::Zeros } else { TensorData::Bytes(bytes.clone()) },
            });
            contents.push(bytes);
        }
        let bytes = to_bytes(builder);
        let header = Header::read(&mut Cursor::new(&bytes)).unwrap();
        prop_assert_eq!(header.file_bytes(), bytes.len() as u64);
        for (index, value) in values.iter().enumerate() {
            let found = header.get(&format!("key.{index}")).unwrap();
            // Compared as bytes, for a NaN equals no other.
            let (mut a, mut b) = (Builder::new(), Builder::new());
            a.set_ref("k", found);
            b.set_ref("k", value);
            prop_assert_eq!(to_bytes(a), to_bytes(b));
        }
        prop_assert_eq!(header.tensors().len(), contents.len());
        for ((info, expected), (ggml_type, dims, _)) in
            header.tensors().iter().zip(&contents).zip(&tensors)
        {
            prop_assert_eq!(info.ggml_type(), *ggml_type);
            prop_assert_eq!(info.dims(), &dims[..]);
            prop_assert_eq!(info.offset() % header.alignment(), 0);
            let at = info.offset() as usize;
            prop_assert_eq!(&bytes[at..at + info.bytes() as usize], &expected[..]);
        }
    }

    #[test]
    fn a_slice_of_an_array_is_those_elements(
        texts in vec(vec(any::<u8>(), 0..5), 0..12),
        (start, end) in (0u64..14, 0u64..14),
    ) {
        let numbers: Vec<u32> = texts.iter().map(|text| text.len() as u32 * 99).collect();
        let range = start as usize..end as usize;
        let expected = texts.get(range.clone()).map(Array::of_text);
        prop_assert_eq!(Array::of_text(&texts).slice(start..end), expected);
        let expected = numbers.get(range).map(Array::of_u32);
        prop_assert_eq!(Array::of_u32(&numbers).slice(start..end), expected);
    }
}

#[test]
fn arrays_are_read_by_their_type() {
    let signed = Array::of_i32(&[-1, i32::MIN, 7]);
    let numbers: Vec<_> = signed.integers().unwrap().collect();
    assert_eq!(numbers, [-1, i128::from(i32::MIN), 7]);
    let flags: Vec<_> = Array::of_bool(&[true, false]).integers().unwrap().collect();
    assert_eq!(flags, [1, 0]);
    let unsigned: Vec<_> = Array::of_u32(&[u32::MAX]).integers().unwrap().collect();
    assert_eq!(unsigned, [i128::from(u32::MAX)]);
    let floats = Array::of_f32(&[0.5, -2.0]);
    assert_eq!(floats.floats().unwrap().collect::<Vec<_>>(), [0.5, -2.0]);
    assert!(floats.integers().is_none());
    let texts = Array::of_text(&["a", "", "bc"]);
    assert!(texts.texts().unwrap().eq([&b"a"[..], b"", b"bc"]));
    assert!(texts.integers().is_none() && texts.floats().is_none());
    assert_eq!((texts.len(), texts.element_type()), (3, ValueType::String));
}

#[test]
fn a_tensor_of_another_size_than_its_data_is_refused() {
    let tensor = |dims: &[u64], len| NewTensor {
        name: "t".into(),
        dims: dims.into(),
        ggml_type: GgmlType::F32,
        data: TensorData::Bytes(vec![0; len]),
    };
    for (tensors, good) in [
        (vec![tensor(&[4], 16)], true),
        (vec![tensor(&[4], 15)], false),
        (vec![tensor(&[0], 0)], false),
        (vec![tensor(&[1; 5], 4)], false),
        (vec![tensor(&[4], 16), tensor(&[4], 16)], false),
    ] {
        let mut builder = Builder::new();
        for tensor in tensors {
            builder.tensor(tensor);
        }
        assert_eq!(builder.layout().is_ok(), good);
    }
}

#[test]
fn copying_from_a_source_that_ends_early_is_an_error() {
    let mut builder = Builder::new();
    builder.tensor(NewTensor {
        name: "t".into(),
        dims: vec![4],
        ggml_type: GgmlType::F32,
        data: TensorData::Copy { part: 0, offset: 8 },
    });
    let layout = builder.layout().unwrap();
    assert!(layout_bytes(&layout, &[&[7; 24]]).is_ok());
    assert!(matches!(
        layout_bytes(&layout, &[&[7; 23]]),
        Err(GgufError::Truncated(_))
    ));
    assert!(matches!(
        layout_bytes(&layout, &[]),
        Err(GgufError::Read(_))
    ));
}

#[test]
fn sizes_of_types_are_ggmls() {
    for (name, elements, bytes) in [
        ("F32", 1, 4),
        ("BF16", 1, 2),
        ("Q4_0", 32, 18),
        ("Q4_1", 32, 20),
        ("Q8_0", 32, 34),
        ("Q4_K", 256, 144),
        ("Q6_K", 256, 210),
        ("IQ1_M", 256, 56),
        ("MXFP4", 32, 17),
        ("NVFP4", 64, 36),
        ("TQ1_0", 256, 54),
    ] {
        let found = GgmlType::all().find(|t| t.name() == name).unwrap();
        assert_eq!(GgmlType::from_id(found.id()), Some(found));
        assert_eq!(found.row_bytes(elements), Some(bytes), "{name}");
        assert_eq!(found.tensor_bytes(&[elements * 2, 3]), Some(bytes * 6));
        assert_eq!(found.row_bytes(elements + 1).is_some(), elements == 1);
    }
    assert_eq!(GgmlType::F32.tensor_bytes(&[]), Some(4));
    assert_eq!(GgmlType::F32.tensor_bytes(&[1 << 61, 2]), None);
    // Removed from GGUF.
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43] {
        assert_eq!(GgmlType::from_id(id), None);
    }
}
