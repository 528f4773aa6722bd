use utoipa::openapi::schema::{AdditionalProperties, AllOf, AnyOf, ArrayItems, Object, OneOf, Schema};
use utoipa::openapi::{OpenApi, RefOr};

/// Writes out the schemas that are made of several, one of which takes no other properties: nothing fits that one and its
/// neighbours at once. They come from serde's `flatten`.
pub(super) fn flatten(document: &mut OpenApi) {
    let Some(components) = &mut document.components else {
        return;
    };
    let all = components.schemas.clone();
    let find = |reference: &str| all.get(reference.rsplit('/').next()?);
    for schema in components.schemas.values_mut() {
        flatten_in(schema, &find);
    }
}

fn flatten_in<'a>(schema: &mut RefOr<Schema>, find: &impl Fn(&str) -> Option<&'a RefOr<Schema>>) {
    let RefOr::T(schema) = schema else { return };
    if let Schema::AllOf(parts) = schema
        && let Some(flat) = flat(parts, find)
        && is_closed(&flat)
    {
        *schema = Schema::Object(flat);
    }
    match schema {
        Schema::Object(object) => {
            let properties = object.properties.values_mut();
            properties.for_each(|inner| flatten_in(inner, find));
        }
        Schema::Array(list) => {
            if let ArrayItems::RefOrSchema(inner) = &mut list.items {
                flatten_in(inner, find);
            }
        }
        Schema::AllOf(AllOf { items, .. })
        | Schema::OneOf(OneOf { items, .. })
        | Schema::AnyOf(AnyOf { items, .. }) => items.iter_mut().for_each(|inner| flatten_in(inner, find)),
        _ => {}
    }
}

/// One object with the properties of all parts; none where a part is no object.
fn flat<'a>(parts: &AllOf, find: &impl Fn(&str) -> Option<&'a RefOr<Schema>>) -> Option<Object> {
    let mut flat = Object::new();
    for part in &parts.items {
        let part = object(part, find)?;
        flat.properties.extend(part.properties);
        flat.required.extend(part.required);
        flat.additional_properties = flat.additional_properties.or(part.additional_properties);
    }
    flat.description.clone_from(&parts.description);
    Some(flat)
}

fn object<'a>(part: &RefOr<Schema>, find: &impl Fn(&str) -> Option<&'a RefOr<Schema>>) -> Option<Object> {
    match part {
        RefOr::Ref(to) => object(find(&to.ref_location)?, find),
        RefOr::T(Schema::Object(object)) => Some(object.clone()),
        RefOr::T(Schema::AllOf(parts)) => flat(parts, find),
        RefOr::T(_) => None,
    }
}

/// Whether an object takes no other properties than those it names.
fn is_closed(object: &Object) -> bool {
    matches!(
        object.additional_properties.as_deref(),
        Some(AdditionalProperties::FreeForm(false))
    )
}
