package seed

import (
	"math/rand/v2"
	"strings"
)

// tongue is a language to write in.
type tongue struct {
	words []string
	// between stands between two words, and ends ends a sentence.
	between string
	ends    []string
}

// tongues are of different scripts and directions. They are meant to exercise, not to be understood.
var tongues = []tongue{
	{
		words: strings.Fields(`the a we you they it is was will can have need think know see meet call send read write
		tomorrow today later soon never maybe again early late here there home office station train coffee lunch
		weekend ticket plan idea question answer photo book movie garden river mountain weather rain sun`),
		between: " ", ends: []string{".", "!", "?", " :)", "…"},
	},
	{
		words: strings.Fields(`wir ihr das ist war wird können müssen schön größer später früh heute morgen übermorgen Zug
		Bahnhof Kaffee Frühstück Straße Brücke Grüße Wochenende vielleicht natürlich gerne nächste`),
		between: " ", ends: []string{".", "!", "?"},
	},
	{
		words: strings.Fields(`мы вы это был будет можно нужно завтра сегодня поезд вокзал кофе погода выходные вопрос ответ
		хорошо спасибо конечно поздно рано дождь солнце`),
		between: " ", ends: []string{".", "!", "?"},
	},
	{
		words:   strings.Fields(`το η και είναι ήταν αύριο σήμερα καφές τρένο σταθμός βροχή ήλιος ίσως ευχαριστώ ερώτηση`),
		between: " ", ends: []string{".", "!", ";"},
	},
	{
		words:   strings.Fields(`نحن أنت هذا كان سوف غدا اليوم قطار محطة قهوة مطر شمس ربما شكرا سؤال جواب صباح مساء`),
		between: " ", ends: []string{".", "!", "؟"},
	},
	{
		words:   strings.Fields(`אנחנו אתם זה היה יהיה מחר היום רכבת תחנה קפה גשם שמש אולי תודה שאלה תשובה בוקר ערב`),
		between: " ", ends: []string{".", "!", "?"},
	},
	{
		words:   strings.Fields(`हम आप यह था होगा कल आज ट्रेन स्टेशन चाय बारिश धूप शायद धन्यवाद सवाल जवाब सुबह शाम`),
		between: " ", ends: []string{"।", "!", "?"},
	},
	{
		words: strings.Fields(`我们 你 他们 这 是 会 明天 今天 火车 车站 咖啡 下雨 太阳 也许 谢谢 问题 回答 早上 晚上 周末`),
		ends:  []string{"。", "！", "？"},
	},
	{
		words: strings.Fields(`私 あなた これ は です でした 明日 今日 電車 駅 コーヒー 雨 晴れ たぶん ありがとう 質問 答え 朝 夜`),
		ends:  []string{"。", "！", "？"},
	},
	{
		words:   strings.Fields(`우리 당신 이것 내일 오늘 기차 역 커피 비 해 아마 감사합니다 질문 대답 아침 저녁 주말`),
		between: " ", ends: []string{".", "!", "?"},
	},
	{words: strings.Fields(`👋 😀 😂 🎉 🚂 ☕ 🌧️ ☀️ ❤️ 👍🏽 👨‍👩‍👧 🏳️‍🌈 🇫🇷 🤷🏿‍♀️`), ends: []string{""}},
}

// maxBody is the most characters that a message may have.
const maxBody = 4000

// text returns the body of a message: mostly a few words, sometimes a page, rarely as long as a message may be. Half of all
// texts are in the first of the tongues.
func text(r *rand.Rand) string {
	language := tongues[0]
	if r.IntN(2) == 0 {
		language = tongues[r.IntN(len(tongues))]
	}
	sentences := 1 + r.IntN(2)
	switch r.IntN(1000) {
	case 0:
		sentences = maxBody // More than fit.
	case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
		sentences = 10 + r.IntN(30)
	}
	var body strings.Builder
	length := 0
	for i := range sentences {
		s := sentence(r, language)
		if i > 0 {
			gap := language.between
			if r.IntN(5) == 0 {
				gap = "\n"
			}
			s = gap + s
		}
		if length += len([]rune(s)); length > maxBody {
			break
		}
		body.WriteString(s)
	}
	return body.String()
}

func sentence(r *rand.Rand, language tongue) string {
	words := make([]string, 1+r.IntN(12))
	for i := range words {
		words[i] = language.words[r.IntN(len(language.words))]
	}
	return strings.Join(words, language.between) + language.ends[r.IntN(len(language.ends))]
}

var (
	givenNames = strings.Fields(`Ada Alan Grace Edsger Barbara Donald Radia Katherine Linus Margaret Niklaus Frances Tim Hedy
		Ольга Иван Ελένη Νίκος فاطمة عمر נועה דוד अनन्या अर्जुन 美玲 伟 さくら 健太 지우 민준 Zoë José Søren Łucja`)
	familyNames = strings.Fields(`Lovelace Turing Hopper Dijkstra Liskov Knuth Perlman Johnson Torvalds Hamilton Wirth Allen
		Lee Lamarr Müller García Иванова Παπαδόπουλος الفاسي כהן शर्मा 王 佐藤 김 Nguyễn Ångström O'Brien`)
)

// name returns a name to show.
func name(r *rand.Rand) string {
	return givenNames[r.IntN(len(givenNames))] + " " + familyNames[r.IntN(len(familyNames))]
}
