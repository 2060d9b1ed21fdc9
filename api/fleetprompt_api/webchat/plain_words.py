"""The words of the chat's page without script, in the languages that the widget speaks."""

import re
from dataclasses import dataclass
from typing import cast, get_args

from fleetprompt.webchat.site_settings import Language


@dataclass(frozen=True, slots=True)
class Words:
    """One language's; ``wait`` takes a number of seconds."""

    direction: str
    you: str
    write: str
    send: str
    look: str
    agree: str
    privacy: str
    name: str
    email: str
    required: str
    end: str
    closed: str
    erase: str
    erased: str
    unavailable: str
    consent_needed: str
    consent_changed: str
    wrong: str
    wait: str
    busy: str
    expired: str
    failed: str


WORDS: dict[Language, Words] = {
    "en": Words(
        direction="ltr",
        you="You",
        write="Write a message",
        send="Send",
        look="Look for answers",
        agree="I agree",
        privacy="Privacy notice",
        name="Name",
        email="E-mail",
        required="required",
        end="End chat",
        closed="This chat has ended. With a message you begin a new one.",
        erase="Erase my data",
        erased="Your data has been erased.",
        unavailable="Chat is not available.",
        consent_needed="Please agree first. Your message is still here.",
        consent_changed="The terms have changed. Please read them and agree again.",
        wrong="Please correct this and send again:",
        wait="Too much at once. Please send again in {} seconds; your message is still here.",
        busy="Many messages come from your network. Please send again in a minute, or switch scripts on.",
        expired="You were away for long. Please send your message again; a new chat begins.",
        failed="That did not work. Please send again.",
    ),
    "de": Words(
        direction="ltr",
        you="Sie",
        write="Nachricht schreiben",
        send="Senden",
        look="Nach Antworten sehen",
        agree="Ich stimme zu",
        privacy="Datenschutz",
        name="Name",
        email="E-Mail",
        required="nötig",
        end="Chat beenden",
        closed="Dieser Chat ist beendet. Mit einer Nachricht beginnen Sie einen neuen.",
        erase="Meine Daten löschen",
        erased="Ihre Daten sind gelöscht.",
        unavailable="Chat nicht verfügbar.",
        consent_needed="Bitte stimmen Sie erst zu. Ihre Nachricht ist noch da.",
        consent_changed="Die Bedingungen sind neu. Bitte lesen Sie sie und stimmen Sie wieder zu.",
        wrong="Bitte ändern Sie dies und senden Sie noch einmal:",
        wait="Zu viel auf einmal. Bitte senden Sie in {} Sekunden noch einmal; Ihre Nachricht ist noch da.",
        busy=(
            "Aus Ihrem Netz kommen viele Nachrichten. Bitte senden Sie in einer Minute noch einmal, "
            "oder schalten Sie Skripte ein."
        ),
        expired="Sie waren lange fort. Bitte senden Sie noch einmal; ein neuer Chat beginnt.",
        failed="Das ging nicht. Bitte senden Sie noch einmal.",
    ),
    "fr": Words(
        direction="ltr",
        you="Vous",
        write="Écrire un message",
        send="Envoyer",
        look="Voir les réponses",
        agree="J’accepte",
        privacy="Confidentialité",
        name="Nom",
        email="E-mail",
        required="obligatoire",
        end="Terminer",
        closed="Cette discussion est terminée. Un message en commence une nouvelle.",
        erase="Effacer mes données",
        erased="Vos données ont été effacées.",
        unavailable="La discussion n’est pas disponible.",
        consent_needed="Veuillez d’abord accepter. Votre message est toujours là.",
        consent_changed="Les conditions ont changé. Veuillez les lire et accepter de nouveau.",
        wrong="Veuillez corriger ceci et envoyer de nouveau :",
        wait="Trop d’un coup. Veuillez renvoyer dans {} secondes ; votre message est toujours là.",
        busy=(
            "Beaucoup de messages viennent de votre réseau. Veuillez renvoyer dans une minute, "
            "ou activez les scripts."
        ),
        expired="Vous étiez absent longtemps. Veuillez renvoyer ; une nouvelle discussion commence.",
        failed="Cela n’a pas marché. Veuillez renvoyer.",
    ),
    "es": Words(
        direction="ltr",
        you="Usted",
        write="Escribir un mensaje",
        send="Enviar",
        look="Ver respuestas",
        agree="Acepto",
        privacy="Privacidad",
        name="Nombre",
        email="Correo electrónico",
        required="obligatorio",
        end="Terminar el chat",
        closed="Este chat ha terminado. Con un mensaje comienza uno nuevo.",
        erase="Borrar mis datos",
        erased="Sus datos se han borrado.",
        unavailable="El chat no está disponible.",
        consent_needed="Acepte primero, por favor. Su mensaje sigue aquí.",
        consent_changed="Las condiciones han cambiado. Léalas y acepte de nuevo, por favor.",
        wrong="Corrija esto y envíe de nuevo, por favor:",
        wait="Demasiado a la vez. Envíe de nuevo en {} segundos, por favor; su mensaje sigue aquí.",
        busy="Llegan muchos mensajes de su red. Envíe de nuevo en un minuto, o active los scripts.",
        expired="Ha pasado mucho tiempo. Envíe de nuevo, por favor; comienza un chat nuevo.",
        failed="No ha funcionado. Envíe de nuevo, por favor.",
    ),
    "ar": Words(
        direction="rtl",
        you="أنت",
        write="اكتب رسالة",
        send="إرسال",
        look="عرض الردود",
        agree="أوافق",
        privacy="الخصوصية",
        name="الاسم",
        email="البريد الإلكتروني",
        required="مطلوب",
        end="إنهاء المحادثة",
        closed="انتهت هذه المحادثة. تبدأ محادثة جديدة برسالة منك.",
        erase="احذف بياناتي",
        erased="تم حذف بياناتك.",
        unavailable="المحادثة غير متاحة.",
        consent_needed="يرجى الموافقة أولاً. رسالتك ما زالت هنا.",
        consent_changed="تغيّرت الشروط. يرجى قراءتها والموافقة من جديد.",
        wrong="يرجى تصحيح ما يلي ثم الإرسال مرة أخرى:",
        wait="رسائل كثيرة دفعة واحدة. يرجى الإرسال مرة أخرى بعد {} ثانية؛ رسالتك ما زالت هنا.",
        busy="تصل رسائل كثيرة من شبكتك. يرجى الإرسال بعد دقيقة أو تفعيل البرامج النصية.",
        expired="مضى وقت طويل. يرجى الإرسال مرة أخرى لتبدأ محادثة جديدة.",
        failed="لم ينجح ذلك. يرجى الإرسال مرة أخرى.",
    ),
    "ja": Words(
        direction="ltr",
        you="あなた",
        write="メッセージを書く",
        send="送信",
        look="返信を見る",
        agree="同意します",
        privacy="プライバシー",
        name="お名前",
        email="メールアドレス",
        required="必須",
        end="チャットを終了",
        closed="このチャットは終了しました。メッセージを送ると新しく始まります。",
        erase="データを削除",
        erased="データを削除しました。",
        unavailable="チャットは利用できません。",
        consent_needed="先に同意してください。メッセージは残っています。",
        consent_changed="内容が変わりました。読んでからもう一度同意してください。",
        wrong="次を直してもう一度送信してください：",
        wait="一度に送りすぎです。{}秒後にもう一度送信してください。メッセージは残っています。",
        busy="お使いのネットワークから多くのメッセージが届いています。1分後に送信するか、スクリプトを有効にしてください。",
        expired="時間がたちました。もう一度送信すると新しいチャットが始まります。",
        failed="うまくいきませんでした。もう一度送信してください。",
    ),
}

_TAG = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*")


def wanted_language(accepted: str) -> Language | None:
    """The language that ``Accept-Language`` wants most of those that are spoken (RFC 9110 §12.5.4)."""
    wanted: list[tuple[float, Language]] = []
    for part in accepted[:1000].split(","):
        found = _TAG.fullmatch(part)
        if found is not None and found[1].lower() in get_args(Language):
            wanted.append((float(found[2] or 1), cast(Language, found[1].lower())))
    weight, language = max(wanted, key=lambda one: one[0], default=(0.0, None))
    return language if weight > 0 else None
